"""Let it crash: what dies is started again from what is recorded, and what always dies ends with a name."""

from collections.abc import Callable
from typing import Any

import pykka
import pytest
from pytest_mock import MockerFixture

from actors.batch.run import BatchRun
from actors.claiming import Claims
from actors.dispatcher import Dispatcher
from actors.errors import SoraBatchError
from actors.messages import Completed, Failed, SupervisorEnded, SupervisorLost, Withdrawn
from actors.service import BatchService
from actors.supervisor import BatchSupervisor
from actors.video import admission
from actors.video.task import VideoTask
from actors.worker import VideoWorker
from storage.changes import Changes
from storage.storage import Storage
from storage.videos import PartFile
from tests.integration.support import (
    PATIENCE,
    Drivers,
    check_files,
    check_journal,
    check_paid_once,
    numbered,
    rows,
    until,
    videos,
)
from tests.provider.client import Provider

pytestmark = pytest.mark.integration

Start = Callable[..., BatchService]
BUG = RuntimeError("a bug of ours")


@pytest.fixture(autouse=True)
def _pykka_logs_deaths(caplog: pytest.LogCaptureFixture) -> None:
    """They are what these tests are about."""
    caplog.set_level("CRITICAL")


def dies(mocker: MockerFixture, owner: Any, name: str, when: Callable[..., bool]) -> list[int]:
    """Have a method raise before its work whenever `when` says so; its hits are counted in the list."""
    original, deaths = getattr(owner, name), [0]

    def dying(*arguments: Any, **named: Any) -> Any:
        if when(*arguments):
            deaths[0] += 1
            raise BUG
        return original(*arguments, **named)

    mocker.patch.object(owner, name, dying)
    return deaths


def first(times: int, prompt: str = "") -> Callable[..., bool]:
    """Say yes to the first few productions of a prompt."""
    seen = [0]

    def when(production: VideoTask) -> bool:
        if prompt not in production._job.prompt:
            return False
        seen[0] += 1
        return seen[0] <= times

    return when


def mortal_run(mocker: MockerFixture, when: Callable[[VideoTask], bool], *, late: bool = False) -> list[int]:
    """Have workers die of a production: before it, or (`late`) after it made everything."""
    original, deaths = VideoTask.run, [0]

    async def run(self: VideoTask) -> Completed | Failed | Withdrawn:
        doomed = when(self)
        report = None if doomed and not late else await original(self)
        if doomed:
            deaths[0] += 1
            raise BUG
        assert report is not None
        return report

    mocker.patch.object(VideoTask, "run", run)
    return deaths


# --- workers


@pytest.mark.parametrize("late", [False, True], ids=["before its work", "after its work"])
@pytest.mark.parametrize("times", [1, 3])
def test_a_worker_that_dies_is_replaced(
    times: int, late: bool, provider: Provider, service: BatchService, mocker: MockerFixture
) -> None:
    deaths = mortal_run(mocker, first(times, "video 2"), late=late)
    batch = service.create_batch(videos(*numbered(5), id="b", concurrency=2))
    final = service.process_batch("b").result(PATIENCE)
    assert deaths == [times]
    assert [(job.status, job.error) for job in final.jobs] == [("completed", None)] * 5
    summary = check_paid_once(provider, limit=2)
    assert set(summary["posts_per_prompt"].values()) == {1}
    check_files(final, provider)
    check_journal(service, batch.id)


def test_workers_that_die_before_their_post_keep_no_place(
    provider: Provider, start_service: Start, mocker: MockerFixture
) -> None:
    mocker.patch.object(admission, "STARTS", 4)
    service = start_service()
    image = "data:image/png;base64,iVBORw0KGgo="
    request = {"videos": [{"prompt": f"a {number}", "input_reference": image} for number in range(6)]}
    service.create_batch({"id": "doomed", **request})
    service._recorder.write(lambda: service._database.execute("DELETE FROM input_references")).result(PATIENCE)
    doomed = service.process_batch("doomed").result(PATIENCE)
    assert [job.error.code for job in doomed.jobs if job.error] == ["internal"] * 6
    fine = service.create_batch(videos("a boat"))
    assert service.process_batch(fine.id).result(PATIENCE).status == "completed"
    check_paid_once(provider)


def test_every_worker_may_die_at_once(provider: Provider, service: BatchService, mocker: MockerFixture) -> None:
    deaths = mortal_run(mocker, first(3))
    service.create_batch(videos(*numbered(6), id="b", concurrency=3))
    assert service.process_batch("b").result(PATIENCE).status == "completed"
    assert deaths == [3]
    check_paid_once(provider, limit=3)


@pytest.mark.parametrize("late", [False, True], ids=["before its work", "after its work"])
def test_a_job_that_kills_every_worker_fails_alone(
    late: bool, provider: Provider, service: BatchService, mocker: MockerFixture
) -> None:
    mortal_run(mocker, first(1000, "video 2"), late=late)
    service.create_batch(videos(*numbered(5), id="b", concurrency=2))
    final = service.process_batch("b").result(PATIENCE)
    assert final.status == "partial"
    assert [job.status for job in final.jobs] == ["completed", "failed", "completed", "completed", "completed"]
    error = final.jobs[1].error
    assert error is not None
    assert (error.code, error.retryable) == ("internal", True)
    assert "a bug of ours" in error.message
    check_paid_once(provider, limit=2)
    mocker.stopall()
    made = service.retry_batch("b", job_ids=["b-02"]).result(PATIENCE)
    assert made.status == "completed"
    check_paid_once(provider)
    check_files(made, provider)


def test_an_error_while_a_file_is_written_is_of_its_job_alone(
    provider: Provider, service: BatchService, mocker: MockerFixture
) -> None:
    dies(mocker, PartFile, "publish", lambda part, _: "b-03" in part.path.name)
    service.create_batch(videos(*numbered(4), id="b"))
    final = service.process_batch("b").result(PATIENCE)
    assert [job.error.code if job.error else None for job in final.jobs] == [None, None, "internal", None]
    assert final.jobs[2].remote_id
    check_paid_once(provider, limit=3)


# --- supervisors


@pytest.mark.parametrize("hit", [1, 2, 5, 9])
def test_a_supervisor_that_dies_is_started_again_from_storage(
    hit: int, provider: Provider, service: BatchService, mocker: MockerFixture
) -> None:
    provider.options(latency=0.1)
    hits = [0]

    def the_one(*_: Any) -> bool:
        hits[0] += 1
        return hits[0] == hit

    deaths = dies(mocker, BatchRun, "report", the_one)
    service.create_batch(videos(*numbered(6), id="b", concurrency=2))
    final = service.process_batch("b").result(PATIENCE)
    assert deaths == [1]
    assert [(job.status, job.error) for job in final.jobs] == [("completed", None)] * 6
    summary = check_paid_once(provider, limit=2)
    assert set(summary["posts_per_prompt"].values()) == {1}
    check_files(final, provider)
    check_journal(service, "b")


def test_a_supervisor_that_dies_after_its_step_was_recorded_repeats_nothing(
    provider: Provider, service: BatchService, mocker: MockerFixture
) -> None:
    hits = [0]

    def the_one(*_: Any) -> bool:
        hits[0] += 1
        return hits[0] in (1, 4)

    deaths = dies(mocker, BatchSupervisor, "_recorded", the_one)
    service.create_batch(videos(*numbered(4), id="b", concurrency=2))
    assert service.process_batch("b").result(PATIENCE).status == "completed"
    assert deaths == [2]
    check_paid_once(provider, limit=2)
    check_journal(service, "b")


def test_a_step_that_can_not_be_recorded_does_not_hang_the_batch(
    provider: Provider, service: BatchService, mocker: MockerFixture
) -> None:
    deaths = [0]
    original = Storage.apply

    def apply(self: Storage, changes: Changes) -> bool:
        if deaths[0] < 2 and any(job.status == "generating" for job in changes.jobs):
            deaths[0] += 1
            raise BUG
        return original(self, changes)

    mocker.patch.object(Storage, "apply", apply)
    service.create_batch(videos(*numbered(3), id="b", concurrency=1))
    final = service.process_batch("b").result(PATIENCE)
    assert deaths[0] == 2
    assert final.status == "completed"
    check_paid_once(provider, limit=1)
    check_journal(service, "b")


def test_one_batchs_supervisor_dies_alone(provider: Provider, service: BatchService, mocker: MockerFixture) -> None:
    dies(mocker, BatchRun, "report", lambda run, *_: run.batch.id == "doomed")
    service.create_batch(videos(*numbered(3, "d"), id="doomed"))
    service.create_batch(videos(*numbered(6, "f"), id="fine", concurrency=2))
    doomed, fine = service.process_batch("doomed"), service.process_batch("fine")
    assert fine.result(PATIENCE).status == "completed"
    assert doomed.exception(PATIENCE) is not None or doomed.result().status == "failed"
    check_paid_once(provider)


def test_a_supervisor_that_always_dies_is_given_up_loudly(
    provider: Provider, service: BatchService, mocker: MockerFixture, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("ERROR")
    deaths = dies(mocker, BatchSupervisor, "_tick", lambda _: True)
    provider.hold()
    service.create_batch(videos(*numbered(3), id="b"))
    running = service.process_batch("b")
    with pytest.raises(SoraBatchError, match="a bug of ours"):
        running.result(PATIENCE)
    assert deaths == [4]
    told = [record for record in caplog.records if getattr(record, "action", "") == "supervisor_lost"]
    assert [(record.levelname, record.batch_id) for record in told] == [("ERROR", "b")] * 4  # type: ignore[attr-defined]
    mocker.stopall()
    provider.release("videos")
    (resumed,) = service.resume_batches()
    assert resumed.result(PATIENCE).status == "completed"
    check_paid_once(provider, limit=3)


def test_a_poison_batch_ends_with_its_remote_ids_kept(
    provider: Provider, service: BatchService, drivers: Drivers, options: Callable[..., Any]
) -> None:
    """Three owners in a row die when they have recorded that they begin on it: the fourth ends it."""
    provider.hold()
    request = videos(*numbered(4), id="b", concurrency=2)
    drivers.run(options=options(), request=request, label="after look", hit=3)
    for _ in range(3):
        drivers.run(options=options(), request=request, do="claim", label="after sweep")
    (running,) = service._run(["b"])  # as a Dispatcher that claims what is wanted: nobody asked anew
    final = running.result(PATIENCE)
    assert final.status == "failed"
    assert [job.error.code for job in final.jobs if job.error] == ["internal"] * 4
    assert sum(job.remote_id is not None for job in final.jobs) == 2
    assert provider.summary()["posts"] == 2
    provider.release("videos")
    made = service.retry_batch("b").result(PATIENCE)
    assert made.status == "completed"
    check_paid_once(provider, limit=2)


# --- the Dispatcher and what it looks at


def test_a_dispatcher_whose_look_fails_looks_again(
    provider: Provider, service: BatchService, mocker: MockerFixture
) -> None:
    looks = [0]

    def fails(*_: Any) -> bool:
        looks[0] += 1
        return looks[0] == 2

    dies(mocker, Claims, "look", fails)
    provider.hold()
    service.create_batch(videos(*numbered(2), id="b"))
    running = service.process_batch("b")
    until(lambda: looks[0] >= 2)
    provider.release("videos")
    assert running.result(PATIENCE).status == "completed"
    check_paid_once(provider)


@pytest.mark.parametrize(
    ("method", "hit"), [("_seen", 1), ("_seen", 3), ("_start", 1), ("_start", 2), ("_supervisor_gone", 1)]
)
def test_a_dispatcher_that_dies_is_replaced_and_its_batches_go_on(
    method: str, hit: int, provider: Provider, service: BatchService, mocker: MockerFixture, tmp_path: Any
) -> None:
    provider.options(latency=0.3)
    hits = [0]

    def the_one(*_: Any) -> bool:
        hits[0] += 1
        return hits[0] == hit

    deaths = dies(mocker, Dispatcher, method, the_one)
    names = ["a", "b", "c"]
    for name in names:
        service.create_batch(videos(*numbered(2, name), id=name, concurrency=1))
    running = [service.process_batch(name) for name in names[:2]]
    service._write(lambda: service._storage.batches.update("c", wanted=True))
    service.serve()
    assert [each.result(PATIENCE).status for each in running] == ["completed"] * 2
    until(lambda: service.get_batch_status("c").finished)
    assert service.get_batch_status("c").status == "completed"
    assert deaths == [1]
    check_paid_once(provider)
    for name in names:
        check_journal(service, name)


BROKEN = {
    "a job's metadata": "UPDATE jobs SET metadata='{\"a' WHERE id='bad-02'",
    "a job's state": "UPDATE jobs SET status='dancing' WHERE id='bad-01'",
    "a number of a job": "UPDATE jobs SET attempts='many' WHERE id='bad-02'",
    "the batch's metadata": "UPDATE batches SET metadata='' WHERE id='bad'",
    "a number of the batch": "UPDATE batches SET concurrency='few' WHERE id='bad'",
}


@pytest.mark.parametrize("sql", BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("serves", [False, True], ids=["asked for", "served"])
def test_a_batch_that_can_not_be_loaded_is_failed_alone(
    sql: str, serves: bool, provider: Provider, service: BatchService
) -> None:
    for name in ("bad", "good"):
        service.create_batch(videos(*numbered(2, name), id=name))
        service._write(lambda each=name: service._storage.batches.update(each, wanted=True))
    service._write(lambda: service._database.execute(sql))
    if serves:
        service.serve()
    else:
        running = [service._run([name])[0] for name in ("bad", "good")]
        assert [each.result(PATIENCE).status for each in running] == ["failed", "completed"]
    until(lambda: service.get_batch_status("good").finished)
    until(lambda: rows_of(service, "SELECT status FROM batches WHERE id='bad'") == [("failed",)])
    bad = service.get_batch_status("bad")
    assert [job.error.code if job.error else None for job in bad.jobs] == ["internal"] * 2
    assert bad.error is not None
    assert "could not be loaded from the database" in bad.error.message
    assert service.get_batch_status("good").status == "completed"
    check_journal(service, "bad")
    check_paid_once(provider)
    assert provider.summary()["posts"] == 2
    assert service.retry_batch("bad").result(PATIENCE).status == "completed"


def test_a_batch_of_an_unknown_status_is_failed_where_it_is_asked_for(
    provider: Provider, service: BatchService
) -> None:
    service.create_batch(videos(*numbered(2), id="bad"))
    service._write(lambda: service._database.execute("UPDATE batches SET status='dancing'"))
    (running,) = service._run(["bad"])
    assert running.result(PATIENCE).status == "failed"
    assert "batches.status of bad: 'dancing'" in str(running.result().error)


def test_what_a_look_claimed_whose_answer_was_lost_is_claimed_again(
    provider: Provider, service: BatchService, mocker: MockerFixture
) -> None:
    original, lost = Claims.look, []

    def look(claims: Claims, question: Any) -> Any:
        seen = original(claims, question)
        if seen.claimed and not lost:
            lost.append(seen)
            raise BUG
        return seen

    mocker.patch.object(Claims, "look", look)
    service.create_batch(videos("a lake", id="b"))
    service._write(lambda: service._storage.batches.update("b", wanted=True))
    service.serve()
    until(lambda: service.get_batch_status("b").finished)
    assert lost
    check_paid_once(provider)


def test_a_supervisor_that_was_replaced_is_not_taken_for_its_successor(
    provider: Provider, service: BatchService
) -> None:
    """Its last message may come when another one has the batch."""
    provider.hold()
    service.create_batch(videos(*numbered(2), id="b", concurrency=1))
    running = service.process_batch("b")
    provider.wait(accepted=1)
    runtime = service._started()
    for stale in (SupervisorEnded("b", 0, released=True), SupervisorLost("b", 0, "an old one")):
        runtime._tell(stale)
    runtime.look()
    assert not running.done()
    provider.release("videos")
    assert running.result(PATIENCE).status == "completed"
    check_paid_once(provider, limit=1)
    assert rows_of(service, "SELECT epoch FROM batches") == [(1,)]


def rows_of(service: BatchService, sql: str) -> list[tuple[Any, ...]]:
    return service._read(lambda: [tuple(row) for row in service._database.execute(sql).fetchall()])


@pytest.mark.parametrize("actor", [Dispatcher, BatchSupervisor, VideoWorker])
def test_an_actor_that_is_told_what_it_does_not_know_dies_loudly(
    actor: Any, provider: Provider, service: BatchService, mocker: MockerFixture
) -> None:
    provider.hold()
    service.create_batch(videos("a lake", id="b"))
    running = service.process_batch("b")
    provider.wait(accepted=1)
    died = mocker.spy(actor, "on_failure")
    pykka.ActorRegistry.broadcast("what is this?", actor)
    until(lambda: died.called)
    provider.release("videos")
    assert running.result(PATIENCE).status == "completed"
    check_paid_once(provider, limit=1)


def test_looks_that_fail_now_and_then_are_not_made_ever_more_seldom(
    provider: Provider, service: BatchService, mocker: MockerFixture
) -> None:
    mocker.patch("actors.dispatcher.RESTART_PERIOD", 0.0)  # the last one was long ago
    waited = mocker.spy(Dispatcher, "_look_on")
    deaths = dies(mocker, Claims, "look", lambda *_: deaths[0] < 6)
    service.create_batch(videos("a lake", id="b"))
    assert service.process_batch("b").result(PATIENCE).status == "completed"
    assert deaths == [6]
    assert max(call.args[1] for call in waited.call_args_list) <= 1.0


def test_a_batch_that_another_owner_has_taken_is_let_go_without_harm(
    provider: Provider, start_service: Start, tmp_path: Any
) -> None:
    """A zombie: its lease was taken for expired, and another process goes on."""
    provider.hold()
    zombie, heir = start_service(), start_service()
    zombie.create_batch(videos(*numbered(5), id="b", concurrency=2))
    first_run = zombie.process_batch("b")
    until(lambda: sum(job.status == "generating" for job in zombie.get_batch_status("b").jobs) == 2)
    (owner,) = rows(tmp_path, "SELECT owner FROM batches")[0]
    zombie._recorder.write(lambda: zombie._storage.owners.expire(owner)).result(PATIENCE)
    second_run = heir.process_batch("b")
    until(lambda: rows(tmp_path, "SELECT owner FROM batches")[0] != (owner,))
    provider.release("videos")
    assert second_run.result(PATIENCE).status == first_run.result(PATIENCE).status == "completed"
    check_files(second_run.result(), provider)
    assert set(check_paid_once(provider, limit=2)["posts_per_prompt"].values()) == {1}
    check_journal(heir, "b")
