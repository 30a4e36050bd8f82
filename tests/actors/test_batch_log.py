"""What the log tells of how a batch came to this process."""

import logging

import pytest

from actors.batch_log import BatchLog
from actors.messages import Loaded
from storage.states import BatchStatus
from tests.builders import a_batch, a_job

NEW, BEGUN = BatchStatus.PENDING, BatchStatus.PROCESSING


@pytest.mark.parametrize(
    ("status", "former", "event", "text"),
    [
        (NEW, None, "batch.claimed", "claimed the batch"),
        (BEGUN, None, "batch.claimed", "claimed a batch that had begun before"),
        (BEGUN, "another", "batch.taken_over", "took the batch over from a dead process"),
        (NEW, "another", "batch.taken_over", "took the batch over from a dead process"),
        (BEGUN, "us", "batch.restarted", "started the supervisor of the batch again"),
    ],
)
def test_a_claim_says_how_the_batch_came_here(caplog, status, former, event, text):
    caplog.set_level(logging.INFO)
    BatchLog(Loaded(a_batch(status=status, epoch=3), [a_job()], {}, former), "us").claimed()
    (line,) = caplog.records
    assert (line.event, line.getMessage(), line.epoch) == (event, text, 3)
    assert getattr(line, "former_owner", None) == (former if event == "batch.taken_over" else None)
    assert getattr(line, "jobs_open", None) == (None if status == NEW else 1)
