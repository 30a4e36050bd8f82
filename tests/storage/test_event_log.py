"""Each event that is recorded has a line of the log, once it is committed."""

import json
import logging

import pytest

from storage.journal import log_events
from tests.builders import an_event


def event(kind, sequence=1, **data):
    document = {"data": {"batch_id": "nature", "status": "processing", "progress": {"percentage": 40}, **data}}
    return an_event(sequence, type=kind, body=json.dumps(document))


JOB = {"id": "nature-02", "status": "failed", "progress": 30, "remote_id": "video_1", "attempts": 1}


def lines(caplog):
    known = vars(logging.makeLogRecord({})).keys() | {"message", "asctime"}
    return [{name: value for name, value in vars(each).items() if name not in known} for each in caplog.records]


def test_a_line_has_of_whom_it_tells_and_what_changed(caplog):
    caplog.set_level(logging.INFO, "storage")
    error = {"code": "moderation_blocked", "message": "blood"}
    log_events(
        [
            event("job.failed", 4, job=JOB | {"error": error}),
            event("batch.updated", 5, metadata={"a": 1}),
            event("batch.invented", 6),
        ]
    )
    failed, updated, invented = lines(caplog)
    assert failed == {
        "action": "job.failed", "event": "job.failed", "batch_id": "nature", "job_id": "nature-02", "status": "failed",
        "progress": 30, "remote_id": "video_1", "attempts": 1, "error_code": "moderation_blocked", "error": "blood",
        "sequence": 4,
    }  # fmt: skip
    assert (updated["status"], updated["changed"]) == ("processing", '{"metadata": {"a": 1}}')
    assert (invented["event"], invented["progress"]) == ("batch.invented", 40)


@pytest.mark.parametrize(("level", "told"), [(logging.DEBUG, 2), (logging.INFO, 1), (logging.WARNING, 0)])
def test_progress_is_told_at_debug_alone(caplog, level, told):
    caplog.set_level(level, "storage")
    log_events([event("job.progressed", job=JOB), event("job.submitted", job=JOB)])
    assert len(lines(caplog)) == told


def test_what_is_rolled_back_is_not_told(storage, caplog):
    caplog.set_level(logging.INFO, "storage")

    def fail():
        with storage.database.begin():
            storage.journal.append([event("batch.created")])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert lines(caplog) == []
    with storage.database.begin():
        storage.journal.append([event("batch.created")])
        assert lines(caplog) == []
    assert [each["event"] for each in lines(caplog)] == ["batch.created"]
