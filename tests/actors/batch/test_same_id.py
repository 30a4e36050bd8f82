"""A batch that was deleted, and another of the same id: what the first one paid is not the second one's."""

import json

import pytest

from actors.batch.cancellation import cancel, may_be_charged
from actors.batch.retrying import retry
from actors.claiming import load
from storage.charges import ChargeState
from storage.states import BatchStatus, JobStatus, SubmissionState
from tests.builders import NOON, PROVIDER, a_batch, a_job, an_intent, put


@pytest.fixture
def again(storage):
    """Puts a batch whose predecessor has paid, and runs a function of its storage in a transaction."""

    def again(act, job_status, **columns):
        job = a_job(status=job_status)
        former = {
            "currency": "USD",
            "reserved_micros": 7,
            "charge": ChargeState.ASSUMED,
            "state": SubmissionState.SURPLUS,
        }
        with storage.database.begin():
            put(storage, a_batch(created_at=NOON, total=1, provider=PROVIDER, **columns), [job])
            storage.submissions.intend([an_intent("former", job, **former)])
            storage.database.execute("UPDATE submissions SET state='surplus', intended_at=?", (NOON - 60,))
        with storage.database.begin():
            answer = act()
        costs = [json.loads(event.body)["data"].get("job", {}).get("cost") for event in storage.journal.read("nature")]
        return answer, [cost for cost in costs if cost is not None]

    return again


def test_cancelling_tells_nothing_of_the_former_batch(storage, again):
    summary, costs = again(lambda: cancel(storage, "nature", None, NOON), JobStatus.PENDING)
    assert (summary.may_be_charged, costs) == ([], [[]])
    assert storage.database.read(lambda: may_be_charged(storage, "nature")) == []


def test_retrying_tells_nothing_of_the_former_batch(storage, again):
    def act():
        return retry(
            storage, "nature", PROVIDER,
            job_ids=None, changes={}, changed_references=[], pay_again=False, at=NOON,
        )  # fmt: skip

    _, costs = again(act, JobStatus.FAILED, failed=1, status=BatchStatus.FAILED)
    assert costs == [[]]


def test_who_takes_over_knows_nothing_of_the_former_batch(storage, again):
    loaded, _ = again(lambda: load(storage, "nature"), JobStatus.PENDING, status=BatchStatus.PROCESSING, epoch=2)
    assert loaded.earlier.submissions == ()
