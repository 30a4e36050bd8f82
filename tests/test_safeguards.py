"""The script that takes safeguards out finds them where it looks. (Running it takes minutes: see docs/architecture.md.)"""

import pytest

from tests.safeguards import ROOT, SAFEGUARDS, Safeguard


@pytest.mark.parametrize("safeguard", SAFEGUARDS, ids=lambda safeguard: safeguard.name)
def test_each_safeguard_is_where_the_script_looks(safeguard: Safeguard) -> None:
    assert (ROOT / safeguard.path).read_text().count(safeguard.sound) == 1
    for test in safeguard.tests:
        path, _, name = test.partition("::")
        assert f"def {name}" in (ROOT / path).read_text()
