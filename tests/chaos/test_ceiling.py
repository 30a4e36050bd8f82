"""A little of what `python -m tests.chaos.ceiling` does for as long as asked."""

from contextlib import closing

import pytest

from tests.chaos.ceiling import kill_under_a_ceiling
from tests.integration.support import Drivers
from tests.provider.client import Provider
from tests.servers.postgresql import PostgreSQL

pytestmark = pytest.mark.integration


def test_four_processes_that_are_killed_at_random_never_spend_more_than_the_ceiling(postgresql: PostgreSQL) -> None:
    with closing(Drivers()) as drivers, Provider() as provider:
        report = kill_under_a_ceiling(1, 8, provider, drivers, postgresql)
    assert report.wrong == []
    assert report.kills == 8
    assert report.billed > 0
