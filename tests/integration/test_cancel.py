"""Cancelling works within a second, from any process, wherever the batch stands."""

import os
import signal
import threading
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import peewee
import pytest
from pytest_mock import MockerFixture

from actors.batch.cancellation import cancel
from actors.batch.orphans import Orphans
from actors.batch.views import CancellationSummary
from actors.errors import Conflict, NotFound
from actors.service import BatchService
from storage.videos import PartFile, VideoFolder
from tests.builders import a_job, an_intent
from tests.integration.support import (
    PATIENCE,
    Drivers,
    check_files,
    check_journal,
    check_paid_once,
    numbered,
    until,
    videos,
)
from tests.provider.client import Provider

pytestmark = pytest.mark.integration

Start = Callable[..., BatchService]
WITHIN = 1.0


@contextmanager
def within(seconds: float = WITHIN) -> Any:
    start = monotonic()
    yield
    assert monotonic() - start < seconds


def check(summary: CancellationSummary, *, total: int, cancelled: int, completed: int = 0, failed: int = 0) -> None:
    assert summary.status == "cancelled"
    counts = (summary.total, summary.cancelled, summary.completed, summary.failed)
    assert counts == (total, cancelled, completed, failed)
    assert summary.already_final == completed + failed
    assert total == cancelled + completed + failed


def charges(summary: CancellationSummary) -> list[tuple[str, bool, str]]:
    return sorted((charge.job_id, charge.remote_id is not None, charge.state) for charge in summary.may_be_charged)


def some_time_passes(service: BatchService, provider: Provider) -> None:
    """Another batch is made from its start to its end: whatever was left running has had its chance."""
    provider.release("videos")
    batch = service.create_batch(videos("marker: video", "marker: another", concurrency=1))
    assert service.process_batch(batch.id).result(PATIENCE).status == "completed"


def polls(provider: Provider, group: str = "a") -> int:
    return sum(video["polls"] for video in provider.ledger()["videos"] if video["group"] == group)


def test_a_batch_is_cancelled_before_its_start(provider: Provider, service: BatchService) -> None:
    service.create_batch(videos(*numbered(3), id="b", metadata={"user": "u"}))
    with within():
        summary = service.cancel_batch("b", reason="a change of mind")
    check(summary, total=3, cancelled=3)
    assert summary.may_be_charged == []
    batch = service.get_batch_status("b")
    assert (batch.status, batch.metadata) == ("cancelled", {"user": "u"})
    assert [(job.status, job.error.code) for job in batch.jobs if job.error] == [("cancelled", "cancelled")] * 3
    with within():
        assert service.process_batch("b").result(PATIENCE).status == "cancelled"
    assert provider.summary()["posts"] == 0
    assert check_journal(service, "b")[-1] == "batch.cancelled"


def test_a_batch_is_cancelled_while_its_videos_are_made(provider: Provider, service: BatchService) -> None:
    provider.hold()
    service.create_batch(videos(*numbered(6), id="b", concurrency=2))
    running = service.process_batch("b")
    provider.wait(accepted=2)
    provider.finish(match="video 1")
    provider.wait(accepted=3)
    until(lambda: service.get_batch_status("b").progress.completed == 1)
    until(lambda: sum(job.status == "generating" for job in service.get_batch_status("b").jobs) == 2)
    with within():
        summary = service.cancel_batch("b")
        final = running.result(PATIENCE)
    assert final.status == "cancelled"
    assert final.progress.model_dump() == {
        "total": 6, "completed": 1, "failed": 0, "cancelled": 5, "pending": 0, "processing": 0, "percentage": 100,
    }  # fmt: skip
    check(summary, total=6, cancelled=5, completed=1)
    assert charges(summary) == [("b-02", True, "generating"), ("b-03", True, "generating")]
    check_files(final, provider)
    names = check_journal(service, "b")
    assert names.count("job.cancelled") == 5
    assert names[-1] == "batch.cancelled"

    polled = polls(provider)
    some_time_passes(service, provider)
    assert polls(provider) - polled <= 2  # at most the looks that were on their way
    assert sum(prompt.startswith("a:") for prompt in provider.summary()["posts_per_prompt"]) == 3


def test_cancelling_again_gives_the_same_summary(provider: Provider, start_service: Start) -> None:
    service = start_service(sora_delete_on_cancel="never")
    provider.hold()
    service.create_batch(videos(*numbered(5), id="b"))
    running = service.process_batch("b")
    until(lambda: sum(job.status == "generating" for job in service.get_batch_status("b").jobs) == 3)
    first = service.cancel_batch("b")
    assert service.cancel_batch("b", reason="another") == first
    assert start_service(sora_delete_on_cancel="never").cancel_batch("b") == first
    assert running.result(PATIENCE).status == "cancelled"
    assert check_journal(service, "b").count("batch.cancelled") == 1


def test_a_batch_that_waits_for_a_place_is_cancelled(provider: Provider, start_service: Start) -> None:
    service = start_service(sora_max_in_flight=2)
    provider.hold()
    first = service.process_batch(service.create_batch(videos(*numbered(4), id="first")).id)
    provider.wait(accepted=2)
    waiting = service.process_batch(service.create_batch(videos(*numbered(4, "w"), id="waiting")).id)
    until(lambda: service.get_batch_status("waiting").status == "processing")
    with within():
        check(service.cancel_batch("waiting"), total=4, cancelled=4)
        assert waiting.result(PATIENCE).status == "cancelled"
    provider.release("videos")
    assert first.result(PATIENCE).status == "completed"
    assert not [prompt for prompt in provider.summary()["posts_per_prompt"] if prompt.startswith("w")]
    check_paid_once(provider, limit=2)


def test_a_batch_that_nobody_has_room_for_is_cancelled(provider: Provider, start_service: Start) -> None:
    service = start_service(batch_parallel=1)
    provider.hold()
    first = service.process_batch(service.create_batch(videos("a: video")).id)
    provider.wait(accepted=1)
    waiting = service.process_batch(service.create_batch(videos("w: video", id="waiting")).id)
    with within():
        check(service.cancel_batch("waiting"), total=1, cancelled=1)
        assert waiting.result(PATIENCE).status == "cancelled"
    provider.release("videos")
    assert first.result(PATIENCE).status == "completed"
    assert list(provider.summary()["posts_per_prompt"]) == ["a: video"]


def test_another_process_cancels_what_runs_here(
    provider: Provider, service: BatchService, drivers: Drivers, options: Callable[..., Any]
) -> None:
    provider.hold()
    service.create_batch(videos(*numbered(5), id="b", concurrency=2))
    running = service.process_batch("b")
    until(lambda: sum(job.status == "generating" for job in service.get_batch_status("b").jobs) == 2)
    told = drivers.run(options=options(), do="cancel", id="b")
    with within():
        assert running.result(PATIENCE).status == "cancelled"
    summary = CancellationSummary.model_validate(told["said"]["summary"])
    check(summary, total=5, cancelled=5)
    assert [(job_id, state) for job_id, _, state in charges(summary)] == [
        ("b-01", "generating"),
        ("b-02", "generating"),
    ]
    polled = polls(provider)
    some_time_passes(service, provider)
    assert polls(provider) - polled <= 2
    assert sum(prompt.startswith("a:") for prompt in provider.summary()["posts_per_prompt"]) == 2


def test_this_process_cancels_what_runs_in_another(
    database_url: str, provider: Provider, start_service: Start, drivers: Drivers, options: Callable[..., Any]
) -> None:
    provider.hold()
    drivers.start(options=options(database_url=database_url), request=videos(*numbered(5), id="b", concurrency=2))
    service = start_service(database_url=database_url)
    provider.wait(accepted=2)
    until(lambda: sum(job.status == "generating" for job in service.get_batch_status("b").jobs) == 2)
    with within():
        check(service.cancel_batch("b"), total=5, cancelled=5)
        end = drivers.end()
    assert (end["ended"], end["said"]["status"]) == (0, "cancelled")
    assert provider.summary()["posts"] == 2
    check_journal(service, "b")


def test_a_batch_whose_owner_is_dead_is_cancelled(
    provider: Provider, service: BatchService, drivers: Drivers, options: Callable[..., Any]
) -> None:
    provider.hold()
    pid = drivers.start(options=options(), request=videos(*numbered(5), id="b", concurrency=2))
    until(lambda: provider.summary()["requests"].get("retrieve", 0) >= 2)
    os.kill(pid, signal.SIGKILL)
    drivers.end()
    with within():
        summary = service.cancel_batch("b")
    check(summary, total=5, cancelled=5)
    assert len(summary.may_be_charged) == 2
    provider.wait(deleted=2)
    assert service.resume_batches() == []


def test_a_post_in_flight_is_bound_later_and_told(provider: Provider, start_service: Start) -> None:
    service = start_service(sora_delete_on_cancel="never")
    provider.hold()
    provider.fault(on="create", do="hang", accept=True, match="video 1")
    service.create_batch(videos(*numbered(3), id="b", concurrency=1))
    running = service.process_batch("b")
    provider.wait(hanging=1)
    with within():
        summary = service.cancel_batch("b")
        assert running.result(PATIENCE).status == "cancelled"
    check(summary, total=3, cancelled=3)
    assert charges(summary) == [("b-01", False, "submitting")]
    provider.release("requests")
    until(lambda: charges(service.cancel_batch("b")) == [("b-01", True, "generating")])
    (video,) = provider.ledger()["videos"]
    assert service.cancel_batch("b").may_be_charged[0].remote_id == video["id"]
    assert provider.summary()["posts"] == 1


def test_what_has_ended_is_not_cancelled(provider: Provider, service: BatchService) -> None:
    batch = service.create_batch(videos("a boat", id="b"))
    final = service.process_batch(batch.id).result(PATIENCE)
    with pytest.raises(Conflict, match="completed"):
        service.cancel_batch("b")
    assert service.get_batch_status("b") == final
    with pytest.raises(NotFound, match=r"batches\.db"):
        service.cancel_batch("unknown")


def files(folder: Path) -> list[Path]:
    return [path for path in (folder / "videos").glob("*/*") if path.is_file()]


@pytest.mark.parametrize("label", ["before rename", "before completion"])
def test_no_file_of_a_dead_owner_is_left_of_a_cancelled_batch(
    label: str, service: BatchService, drivers: Drivers, options: Callable[..., Any], tmp_path: Path
) -> None:
    order = {"options": options(), "request": videos(*numbered(2), id="b", concurrency=1), "label": label, "hit": 2}
    assert drivers.run(**order)["ended"] == -signal.SIGKILL
    assert len(files(tmp_path)) == 2
    check(service.cancel_batch("b"), total=2, cancelled=1, completed=1)
    until(lambda: len(files(tmp_path)) == 1)
    assert [str(path) for path in files(tmp_path)] == [service.get_batch_status("b").jobs[0].video.path]


@pytest.mark.parametrize("size", [1_000, 3_000_000])
def test_a_file_that_comes_after_the_cancellation_is_not_left(
    size: int, provider: Provider, service: BatchService, tmp_path: Path, mocker: MockerFixture
) -> None:
    provider.options(content_bytes=size)
    arrived, tidied = threading.Event(), threading.Event()
    publish = PartFile.publish

    def publish_late(part: PartFile, extension: str) -> Path:
        arrived.set()
        assert tidied.wait(PATIENCE)
        # The unfinished file is gone, and its place is taken by one that its owner has just written.
        part.path.write_bytes(b"whole")
        return publish(part, extension)

    mocker.patch.object(PartFile, "publish", publish_late)
    sweeps = mocker.spy(VideoFolder, "clear")
    service.create_batch(videos("a lake", id="b"))
    running = service.process_batch("b")
    assert arrived.wait(PATIENCE)
    service.cancel_batch("b")
    assert running.result(PATIENCE).status == "cancelled"
    until(lambda: len(sweeps.spy_return_list) == 2)  # by who cancelled it, and by its supervisor
    assert files(tmp_path) == []
    tidied.set()
    until(lambda: len(sweeps.spy_return_list) == 3)
    assert files(tmp_path) == []


def test_a_suspended_owner_that_wakes_after_a_retry_with_changes_replaces_no_file(
    provider: Provider, start_service: Start, drivers: Drivers, options: Callable[..., Any], tmp_path: Path
) -> None:
    changes = {"sora_delete_on_cancel": "never"}
    order = {"options": options(**changes), "request": videos("a lake", id="b")}
    late = drivers.start(**order, label="before open", how="stop", until="after rename")
    while "stopped" not in drivers.told(late):
        pass
    service = start_service(**changes)
    check(service.cancel_batch("b"), total=1, cancelled=1)
    retried = service.retry_batch("b", changes={"b-01": {"prompt": "a forest"}}).result(PATIENCE)
    check_files(retried, provider)
    os.kill(late, signal.SIGCONT)
    assert drivers.end(late)["said"]["status"] == "completed"
    check_files(retried, provider)
    until(lambda: [str(path) for path in files(tmp_path)] == [retried.jobs[0].video.path])


@pytest.mark.parametrize("there", [False, True], ids=["here", "on another machine"])
def test_a_neighbour_removes_what_dead_processes_left_of_a_cancelled_batch(
    there: bool,
    service: BatchService,
    drivers: Drivers,
    options: Callable[..., Any],
    tmp_path: Path,
    mocker: MockerFixture,
) -> None:
    order = {"options": options(), "request": videos(*numbered(3), id="b", concurrency=1), "hit": 2}
    assert drivers.run(**order, label="after rename")["ended"] == -signal.SIGKILL
    deletion = mocker.patch.object(service._orphans, "clean_soon")  # whoever cancels it dies before that
    check(service.cancel_batch("b"), total=3, cancelled=2, completed=1)
    deletion.assert_called_once_with("b")
    (tmp_path / "videos" / "b" / "notes.txt").write_text("a person's")
    (tmp_path / "videos" / "b" / "b-02.frames").mkdir()  # can't be removed as a file is
    assert len(files(tmp_path)) == 3
    # The dead one may have been alive for long after that; of another machine, that shares the folder, its lease tells.
    renew = "UPDATE owners SET lease_until = lease_until + 14"
    if there:
        renew = "UPDATE owners SET host = 'elsewhere', lease_until = lease_until - 16"
    service._recorder.write(lambda: service._database.execute(renew)).result(PATIENCE)
    service.serve()
    until(lambda: len(files(tmp_path)) == 2)
    made = Path(service.get_batch_status("b").jobs[0].video.path)
    assert {path.name for path in files(tmp_path)} == {made.name, "notes.txt"}


def test_a_cancellation_that_comes_to_nothing_removes_no_file(service: BatchService, tmp_path: Path) -> None:
    storage, recorder, folder = service._storage, service._recorder, VideoFolder(tmp_path / "videos")
    service.create_batch(videos("a lake", id="b"))
    intent = an_intent("try", a_job(1, "b"))
    recorder.write(lambda: (storage.submissions.intend([intent]), storage.submissions.bind("try", "video_1")))
    folder.batch("b").mkdir(parents=True)
    (folder.batch("b") / "b-01.mp4").write_bytes(b"just put there, and not recorded yet")
    busy, stumbled = threading.Event(), threading.Event()

    def stumble() -> None:
        if not stumbled.is_set():
            stumbled.set()
            raise peewee.OperationalError("database is locked")

    recorder.read(lambda: busy.wait(PATIENCE))  # what comes meanwhile is one group
    cancelling = recorder.write(lambda: cancel(storage, "b", None, service.now()), patience=0.0)
    Orphans(recorder, storage, service.stores).clean_soon("b")
    after = recorder.write(stumble)
    busy.set()
    after.result(PATIENCE)
    with pytest.raises(TimeoutError):
        cancelling.result()
    assert service.get_batch_status("b").status == "pending"
    assert [path.name for path in files(tmp_path)] == ["b-01.mp4"]


def test_a_cancellation_before_the_start_removes_nothing(
    service: BatchService, start_service: Callable[..., BatchService], tmp_path: Path
) -> None:
    service.create_batch(videos("a lake", id="b"))
    final = service.process_batch("b").result(PATIENCE)
    # Another database, the same folder, and the same id.
    other = start_service(database_url=f"sqlite:///{tmp_path}/other.db")
    other.create_batch(videos("a lake", id="b"))
    other.cancel_batch("b")
    other.close()  # what it had to do in the background is done
    assert [str(path) for path in files(tmp_path)] == [final.jobs[0].video.path]


def test_a_cancellation_and_a_completion_at_once_have_one_winner(provider: Provider, service: BatchService) -> None:
    for number in range(12):
        provider.hold()
        batch_id = service.create_batch(videos(f"{number}: video", f"{number}: another")).id
        running = service.process_batch(batch_id)
        provider.wait(in_flight=2)
        provider.release("videos")
        provider.finish()
        try:
            summary = service.cancel_batch(batch_id)
            check(summary, total=2, cancelled=summary.cancelled, completed=summary.completed)
            expected = "cancelled"
        except Conflict:
            expected = "completed"
        final = running.result(PATIENCE)
        assert final.status == service.get_batch_status(batch_id).status == expected
        assert check_journal(service, batch_id)[-1] == f"batch.{expected}"
        check_files(final, provider)
