"""Jobs as rows, and the bytes of their references."""

import pytest

from storage.records import ReferenceRecord
from storage.states import JobStatus
from tests.builders import NOON, a_batch, a_job, put, some_jobs


def test_a_job_comes_back_as_it_was_stored(storage):
    job = a_job(
        prompt="a lake\nat dawn ü", duration=10, model="sora-2", size="1280x720", reference={"file_id": "f"},
        metadata={"k": [1]}, remote_id="v", progress=7, attempts=2, error={"code": "x"}, video={"path": "/p"},
        started_at=NOON + 0.5, completed_at=NOON + 1, options={"seed": 2**63 - 1, "params": {"ü": [1.5]}},
        made={"reported": {"seconds": 8}},
    )  # fmt: skip
    put(storage, a_batch(), [job])
    assert storage.jobs.of_batch("nature") == [job]


def test_jobs_come_in_the_order_of_the_request(storage):
    put(storage, a_batch(total=12), list(reversed(some_jobs(12))))
    assert [job.position for job in storage.jobs.of_batch("nature")] == list(range(1, 13))


def test_more_jobs_than_one_statement_takes_are_all_stored(storage):
    put(storage, a_batch(total=1201))
    assert len(storage.jobs.of_batch("nature")) == 1201


def test_jobs_are_read_as_they_are_asked_for(storage):
    put(storage, a_batch(total=1100), some_jobs(1100))
    each = storage.jobs.each_of_batch("nature")
    assert next(each).position == 1
    assert [job.position for job in each] == list(range(2, 1101))
    assert list(storage.jobs.each_of_batch("unknown")) == []


def test_open_jobs_are_those_that_have_not_ended(storage):
    jobs = [a_job(position, status=status) for position, status in enumerate(JobStatus, 1)]
    put(storage, a_batch(total=len(jobs)), jobs)
    found = storage.jobs.of_batch("nature", open_only=True)
    assert [job.status.value for job in found] == ["pending", "submitting", "generating", "downloading"]


def test_jobs_are_found_by_their_ids(storage):
    put(storage, a_batch(total=3))
    found = storage.jobs.by_id(["nature-03", "nature-01", "unknown"])
    assert found == {"nature-01": a_job(1), "nature-03": a_job(3)}
    assert storage.jobs.by_id([]) == {}


def test_everything_of_a_job_that_may_change_is_saved(storage):
    put(storage, a_batch())
    changed = a_job(
        status=JobStatus.COMPLETED, prompt="new", duration=1, model="m", size="10x10", reference={"digest": "d"},
        remote_id="v", progress=100, attempts=3, error={"message": "ü"}, video={"bytes": 1}, updated_at=NOON + 1,
        started_at=NOON, completed_at=NOON + 2, options={"take": 2}, made={"warnings": []},
    )  # fmt: skip
    storage.jobs.save([changed])
    assert storage.jobs.of_batch("nature") == [changed]
    storage.jobs.save([changed._replace(error=None, video=None, reference=None)])
    assert storage.jobs.of_batch("nature")[0].error is None


def test_a_reference_is_kept_once_under_its_digest(storage):
    reference = ReferenceRecord(digest="d", name="a.png", content_type="image/png", data=bytes(range(256)))
    storage.jobs.keep_reference(reference)
    storage.jobs.keep_reference(reference._replace(name="b.png"))
    assert storage.jobs.reference("d") == reference


def test_a_reference_that_nobody_stored_is_an_error_that_names_it(storage):
    with pytest.raises(LookupError, match="digest d is stored"):
        storage.jobs.reference("d")
