"""A little of what `python -m tests.chaos` does for as long as asked. A seed that failed once comes here."""

import pytest

from tests.chaos.run import chaos

pytestmark = pytest.mark.integration


def test_whatever_goes_wrong_nothing_is_lost_and_nothing_paid_twice() -> None:
    report = chaos(seed=1, minutes=1.4)
    assert report.wrong == [], "\n".join(report.lines())
    assert report.batches.total() > 5
