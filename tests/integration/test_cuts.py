"""A little of what `python -m tests.integration.cuts` does as often as asked."""

import pytest

from tests.integration.cuts import LISTINGS, cuts
from tests.integration.support import Drivers
from tests.provider.client import Provider

pytestmark = pytest.mark.integration


def test_cuts_in_the_submission_window_pay_nothing_twice(provider: Provider, drivers: Drivers) -> None:
    report = cuts(1, 48, provider, drivers)
    assert report.wrong == []
    assert [sum(report.outcomes[name].values()) for name in LISTINGS] == [8] * 6
    unknown = {name for name, outcomes in report.outcomes.items() if any("unknown" in each for each in outcomes)}
    assert unknown == {"no prompts", "no listing", "2 replicas", "3 replicas"}
