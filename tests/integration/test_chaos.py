"""A little of what `python -m tests.integration.chaos` does for as long as asked."""

import pytest

from tests.integration.chaos import chaos
from tests.integration.support import Drivers
from tests.provider.client import Provider

pytestmark = pytest.mark.integration


def test_random_kills_lose_nothing_and_pay_nothing_twice(provider: Provider, drivers: Drivers) -> None:
    report = chaos(1, 30, provider, drivers)
    assert report.wrong == []
    assert report.kills == 30
