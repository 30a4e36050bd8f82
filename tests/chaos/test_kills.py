"""A little of what `python -m tests.chaos.kills` does for as long as asked."""

from contextlib import closing

import pytest

from tests.chaos.kills import kill_at_random
from tests.integration.support import Drivers
from tests.provider.client import Provider

pytestmark = pytest.mark.integration


def test_random_kills_lose_nothing_and_pay_nothing_twice() -> None:
    with closing(Drivers()) as drivers, Provider() as provider:
        report = kill_at_random(1, 30, provider, drivers)
    assert report.wrong == []
    assert report.kills == 30
