"""Letting go, in every moment: whoever waits is answered, and nobody goes on paying unasked."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from pytest_mock import MockerFixture

from actors.batch.commands import CommandKey, Process
from actors.batch.views import Batch
from actors.claiming import Claims
from actors.dispatcher import Dispatcher
from actors.errors import BatchReleased, SettingsError, SoraBatchError
from actors.service import BatchService
from actors.sora.client import SoraClient
from actors.supervisor import BatchSupervisor
from tests.integration.support import PATIENCE, Drivers, check_journal, check_paid_once, numbered, rows, until, videos
from tests.provider.client import Provider

pytestmark = pytest.mark.integration

Start = Callable[..., BatchService]


def ownership(folder: Path) -> tuple[str | None, bool]:
    ((owner, wanted),) = rows(folder, "SELECT owner, wanted FROM batches")
    return owner, bool(wanted)


def want(service: BatchService, batch_id: str) -> None:
    """As a `process` from RabbitMQ does."""
    service._write(lambda: service._storage.batches.update(batch_id, wanted=True))


@pytest.fixture
def slow_looks(mocker: MockerFixture) -> tuple[threading.Event, threading.Event]:
    """From the first event on, a Dispatcher's look that has claimed something is held until the second one."""
    held, go_on = threading.Event(), threading.Event()
    original = Claims.look

    def look(self: Claims, *arguments: Any) -> Any:
        seen = original(self, *arguments)
        if seen.claimed:
            held.set()
            assert go_on.wait(PATIENCE)
        return seen

    mocker.patch.object(Claims, "look", look)
    return held, go_on


def test_a_batch_is_let_go_that_has_just_been_claimed(
    service: BatchService, provider: Provider, slow_looks: tuple[threading.Event, threading.Event], tmp_path: Path
) -> None:
    held, go_on = slow_looks
    provider.hold()
    service.create_batch(videos(*numbered(3), id="b"))
    running = service.process_batch("b")
    assert held.wait(PATIENCE)
    letting_go = threading.Thread(target=service.let_go, args=["b"])
    letting_go.start()
    until(lambda: len(service._waiting._futures["b"]) == 2)
    go_on.set()
    letting_go.join(PATIENCE)
    with pytest.raises(BatchReleased):
        running.result(PATIENCE)
    assert ownership(tmp_path) == (None, False)


def test_a_batch_that_waits_for_room_is_let_go(provider: Provider, start_service: Start, tmp_path: Path) -> None:
    service = start_service(batch_parallel=1)
    provider.hold()
    service.create_batch(videos("first", id="a"))
    service.process_batch("a")
    provider.wait(accepted=1)
    service.create_batch(videos("second", id="b"))
    running = service.process_batch("b")
    service.let_go("b")
    with pytest.raises(BatchReleased):
        running.result(PATIENCE)
    assert rows(tmp_path, "SELECT id FROM batches WHERE wanted") == [("a",)]


def test_what_a_message_asked_for_stays_wanted(provider: Provider, start_service: Start, tmp_path: Path) -> None:
    provider.hold()
    service = start_service()
    service.create_batch(videos(*numbered(2), id="b", concurrency=1))
    service.serve()
    assert service.obey(Process("b"), CommandKey("a program", "1", "digest"), lambda _: "done") == "done"
    provider.wait(accepted=1)
    service.let_go("b")
    assert ownership(tmp_path) == (None, True)


@pytest.mark.parametrize("runs", [True, False], ids=["running", "waiting for room"])
def test_what_a_command_asked_for_after_this_service_stays_wanted(
    runs: bool, provider: Provider, start_service: Start, tmp_path: Path
) -> None:
    provider.hold()
    one, other = start_service(batch_parallel=1), start_service()
    if not runs:
        one.create_batch(videos("first", id="a"))
        one.process_batch("a")
        provider.wait(accepted=1)
    one.create_batch(videos(*numbered(2), id="b", concurrency=1))
    running = one.process_batch("b")
    if runs:
        provider.wait(accepted=1)
    for number in "12":
        assert other.obey(Process("b"), CommandKey("a program", number, "digest"), lambda _: "done") == "done"
    one.let_go("b")
    with pytest.raises(BatchReleased):
        running.result(PATIENCE)
    assert rows(tmp_path, "SELECT owner, wanted FROM batches WHERE id='b'") == [(None, 1)]
    # It is asked for once: whoever queues it anew may un-queue it.
    other.cancel_batch("b")
    again = one.retry_batch("b")
    one.let_go("b")
    with pytest.raises(BatchReleased):
        again.result(PATIENCE)
    assert rows(tmp_path, "SELECT owner, wanted FROM batches WHERE id='b'") == [(None, 0)]


@pytest.mark.parametrize("how", ["resume", "process", "resume one that has not started"])
def test_what_others_asked_for_stays_wanted(
    how: str, provider: Provider, start_service: Start, drivers: Drivers, options: Callable[..., Any], tmp_path: Path
) -> None:
    """Ctrl-C on `resume`, or another one's `let_go`: a serve makes it afterwards."""
    provider.hold()
    request = videos(*numbered(2), id="b", concurrency=1)
    service = start_service()
    if how == "resume one that has not started":
        service.create_batch(request)
        service._write(lambda: service._storage.batches.update("b", wanted=True))
    else:  # its owner died
        drivers.run(options=options(), request=request, label="after look")
    running = service.process_batch("b") if how == "process" else service.resume_batches()[0]
    provider.wait(accepted=1)
    runtime = service._started()
    until(lambda: ownership(tmp_path)[0] == runtime.owner.id)
    service.let_go("b")
    with pytest.raises(BatchReleased):
        running.result(PATIENCE)
    assert ownership(tmp_path) == (None, True)
    provider.release("videos")
    other = start_service()
    other.serve()
    until(lambda: other.get_batch_status("b").finished)
    assert other.get_batch_status("b").status == "completed"
    check_paid_once(provider, limit=1)


def test_what_was_let_go_is_not_claimed_again_by_the_same_service(
    provider: Provider, service: BatchService, tmp_path: Path
) -> None:
    provider.hold()
    service.create_batch(videos(*numbered(2), id="b", concurrency=1))
    service._write(lambda: service._storage.batches.update("b", wanted=True))
    service.serve()
    provider.wait(accepted=1)
    service.let_go("b")
    assert ownership(tmp_path) == (None, True)
    service._started().look()
    service.create_batch(videos("another", id="c"))
    provider.release("videos")
    assert service.process_batch("c").result(PATIENCE).status == "completed"
    assert rows(tmp_path, "SELECT owner, wanted FROM batches WHERE id='b'") == [(None, 1)]
    assert service.process_batch("b").result(PATIENCE).status == "completed"


@pytest.mark.parametrize("how", ["process", "retry"])
def test_what_this_service_asked_for_is_not_wanted_any_more(
    how: str, provider: Provider, service: BatchService, tmp_path: Path
) -> None:
    service.create_batch(videos(*numbered(2), id="b", concurrency=1))
    if how == "retry":
        service.cancel_batch("b")
    provider.hold()
    running = service.process_batch("b") if how == "process" else service.retry_batch("b")
    provider.wait(accepted=1)
    service.let_go("b")
    with pytest.raises(BatchReleased):
        running.result(PATIENCE)
    assert ownership(tmp_path) == (None, False)


def test_letting_go_of_what_runs_elsewhere_leaves_it_running(
    provider: Provider, start_service: Start, tmp_path: Path
) -> None:
    one, other = start_service(), start_service()
    provider.hold()
    one.create_batch(videos(*numbered(3), id="b"))
    first = one.process_batch("b")
    provider.wait(accepted=3)
    second = other.process_batch("b")
    other.let_go("b")
    with pytest.raises(BatchReleased):
        second.result(PATIENCE)
    owner, wanted = ownership(tmp_path)
    assert owner is not None
    assert wanted
    provider.release("videos")
    assert first.result(PATIENCE).status == "completed"


def test_who_waits_for_a_batch_goes_on_with_it_when_another_lets_it_go(
    provider: Provider, start_service: Start
) -> None:
    one, other = start_service(), start_service()
    provider.hold()
    one.create_batch(videos(*numbered(3), id="b", concurrency=1))
    one.process_batch("b")
    provider.wait(accepted=1)
    second = other.process_batch("b")
    one.let_go("b")
    provider.release("videos")
    assert second.result(PATIENCE).status == "completed"
    check_paid_once(provider, limit=1)
    check_journal(one, "b")


@pytest.mark.parametrize("cancels", ["here", "elsewhere"])
def test_letting_go_while_it_is_cancelled(provider: Provider, start_service: Start, cancels: str) -> None:
    service, other = start_service(), start_service()
    provider.hold()
    service.create_batch(videos(*numbered(3), id="b"))
    running = service.process_batch("b")
    provider.wait(accepted=3)
    letting_go = threading.Thread(target=service.let_go, args=["b"])
    letting_go.start()
    (service if cancels == "here" else other).cancel_batch("b")
    letting_go.join(PATIENCE)
    assert not letting_go.is_alive()
    outcome = running.exception(PATIENCE)
    assert outcome is None or isinstance(outcome, BatchReleased)
    assert service.get_batch_status("b").status == "cancelled"


def test_letting_go_when_it_has_ended(provider: Provider, service: BatchService) -> None:
    service.create_batch(videos("a boat", id="b"))
    assert service.process_batch("b").result(PATIENCE).status == "completed"
    service.let_go("b")
    assert service.get_batch_status("b").status == "completed"


def test_letting_go_while_its_supervisor_dies(
    provider: Provider, service: BatchService, mocker: MockerFixture, tmp_path: Path, caplog: Any
) -> None:
    caplog.set_level("CRITICAL")
    mocker.patch.object(BatchSupervisor, "_start_release", side_effect=RuntimeError("a bug of ours"))
    provider.hold()
    service.create_batch(videos(*numbered(3), id="b"))
    running = service.process_batch("b")
    provider.wait(accepted=3)
    service.let_go("b")
    with pytest.raises(BatchReleased):
        running.result(PATIENCE)
    assert ownership(tmp_path) == (None, False)
    mocker.stopall()
    provider.release("videos")
    (resumed,) = service.resume_batches(["b"])
    assert resumed.result(PATIENCE).status == "completed"
    check_paid_once(provider, limit=3)


def test_a_supervisor_that_is_given_up_leaves_its_batch_to_others(
    provider: Provider, start_service: Start, mocker: MockerFixture, tmp_path: Path, caplog: Any
) -> None:
    caplog.set_level("CRITICAL")
    service = start_service()
    mocker.patch.object(BatchSupervisor, "_tick", side_effect=RuntimeError("a bug of ours"))
    provider.hold()
    service.create_batch(videos(*numbered(3), id="b"))
    with pytest.raises(SoraBatchError, match="died 4 times"):
        service.process_batch("b").result(PATIENCE)
    assert ownership(tmp_path) == (None, True)
    mocker.stopall()
    provider.release("videos")
    assert start_service().process_batch("b").result(PATIENCE).status == "completed"
    check_paid_once(provider, limit=3)


def test_a_callback_may_use_the_service(provider: Provider, service: BatchService) -> None:
    service.create_batch(videos("one", id="a"))
    service.create_batch(videos("two", id="b"))
    seconds: list[Batch] = []
    done = threading.Event()

    def then(_: Any) -> None:
        service.process_batch("b").add_done_callback(lambda second: (seconds.append(second.result()), done.set()))

    service.process_batch("a").add_done_callback(then)
    assert done.wait(PATIENCE)
    assert seconds[0].status == "completed"


def test_a_service_whose_dispatcher_has_died_says_so(
    provider: Provider, service: BatchService, mocker: MockerFixture, caplog: Any
) -> None:
    caplog.set_level("CRITICAL")
    mocker.patch.object(Dispatcher, "_seen", side_effect=RuntimeError("a bug of ours"))
    service.create_batch(videos("a boat", id="b"))
    with pytest.raises(SoraBatchError, match=r"the dispatcher died: .*a bug of ours"):
        service.process_batch("b").result(PATIENCE)
    with pytest.raises(SoraBatchError, match="the dispatcher of this process has died"):
        service.process_batch("b")
    assert service._waiting.take("b") == []


def test_a_look_that_always_fails_is_given_up_loudly(
    provider: Provider, service: BatchService, mocker: MockerFixture, caplog: Any
) -> None:
    caplog.set_level("CRITICAL")
    mocker.patch("actors.dispatcher.LOOK", 0.001)
    looks = mocker.patch.object(Claims, "look", side_effect=RuntimeError("a bug of ours"))
    service.create_batch(videos("a boat", id="b"))
    with pytest.raises(SoraBatchError, match="a bug of ours"):
        service.process_batch("b").result(PATIENCE)
    assert looks.call_count == 4 * 4  # by each of four Dispatchers


def test_a_batch_that_can_not_be_made_here_is_not_wanted(start_service: Start, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    service = start_service(video_dir=str(tmp_path / "file" / "videos"))
    service.create_batch(videos("a boat", id="b"))
    with pytest.raises(SettingsError, match="VIDEO_DIR"):
        service.process_batch("b")
    assert ownership(tmp_path) == (None, False)
    assert service._waiting.take("b") == []


# --- closing


def test_whoever_hears_of_the_end_of_serving_may_close_the_service(
    provider: Provider, start_service: Start, mocker: MockerFixture, caplog: Any
) -> None:
    caplog.set_level("CRITICAL")
    service, closed = start_service(), threading.Event()
    mocker.patch.object(Dispatcher, "_seen", side_effect=RuntimeError("a bug of ours"))
    service.serve().add_done_callback(lambda _: (service.close(), closed.set()))
    assert closed.wait(PATIENCE)
    assert service._runtime is not None
    assert service._runtime.io.loop.is_closed()


def test_closing_goes_on_where_a_part_of_it_fails(
    provider: Provider, start_service: Start, mocker: MockerFixture, caplog: Any
) -> None:
    service = start_service()
    service.create_batch(videos("a boat", id="b"))
    provider.hold()
    running = service.process_batch("b")
    provider.wait(accepted=1)
    leave = SoraClient.__aexit__

    async def failing(client: SoraClient, *_: object) -> None:
        await leave(client)
        raise OSError("no")

    mocker.patch.object(SoraClient, "__aexit__", failing)
    service.close()
    with pytest.raises(BatchReleased):
        running.result(PATIENCE)
    assert service._runtime is not None
    assert service._runtime.io.loop.is_closed()
    assert "could not close the connections to the server cleanly" in caplog.text
    mocker.stopall()


def test_closing_while_other_threads_process_cancel_and_let_go(provider: Provider, start_service: Start) -> None:
    """Whatever comes too late is told so, and everybody who waits is answered."""
    service, others = start_service(), ThreadPoolExecutor(8)
    provider.hold()
    begun = threading.Barrier(9)

    def use(number: int) -> list[BaseException]:
        met: list[BaseException] = []
        begun.wait(PATIENCE)
        for each in range(20):
            batch_id = f"b-{number}-{each}"
            try:
                service.create_batch(videos("a boat", id=batch_id))
                running = service.process_batch(batch_id)
                (service.let_go, service.cancel_batch, lambda _: None)[each % 3](batch_id)
                running.result(PATIENCE)
            except (SoraBatchError, TimeoutError) as error:
                met.append(error)
        return met

    using = [others.submit(use, number) for number in range(8)]
    begun.wait(PATIENCE)
    provider.wait(accepted=1)
    service.close()
    for each in using:
        assert not [error for error in each.result(PATIENCE) if isinstance(error, TimeoutError)]
    others.shutdown()


# --- a key that is refused


def test_a_serve_whose_key_is_refused_leaves_the_batches_to_others(
    provider: Provider, start_service: Start, tmp_path: Path, caplog: Any
) -> None:
    provider.options(api_key="sk-right")
    serving = start_service(openai_api_key="sk-wrong")
    names = ["a", "b", "c"]
    for name in names:
        serving.create_batch(videos(*numbered(3, name), id=name))
        want(serving, name)
    serving.serve()
    until(lambda: serving.key_refused)
    until(lambda: rows(tmp_path, "SELECT DISTINCT owner, wanted FROM batches") == [(None, 1)])
    assert [record.levelname for record in caplog.records if "refused the key" in record.getMessage()] == ["ERROR"]
    serving.create_batch(videos("a boat", id="later"))
    want(serving, "later")
    serving._started().look()
    serving._started().look()
    serving._recorder.read(lambda: None).result(PATIENCE)
    assert rows(tmp_path, "SELECT owner, wanted FROM batches WHERE id='later'") == [(None, 1)]
    heir = start_service(openai_api_key="sk-right")
    heir.serve()
    for name in [*names, "later"]:
        until(lambda each=name: heir.get_batch_status(each).finished)
        assert (heir.get_batch_status(name).status, heir.get_batch_status(name).error) == ("completed", None)
    assert not heir.key_refused
    check_paid_once(provider)


def test_a_serve_whose_key_is_refused_leaves_what_the_server_is_making(
    provider: Provider, start_service: Start, drivers: Drivers, options: Callable[..., Any], tmp_path: Path
) -> None:
    """The looks at its videos fail, and so does the listing: that says nothing of them."""
    provider.options(api_key="sk-right")
    provider.hold()
    right = {"openai_api_key": "sk-right"}
    drivers.run(options=options(**right), request=videos(*numbered(4), id="b", concurrency=2), label="after look")
    serving = start_service(openai_api_key="sk-wrong")
    serving.serve()
    until(lambda: serving.key_refused)
    until(lambda: ownership(tmp_path) == (None, True))
    assert {job.status for job in serving.get_batch_status("b").jobs} <= {"generating", "submitting", "pending"}
    provider.release("videos")
    (running,) = start_service(**right).resume_batches()
    assert running.result(PATIENCE).status == "completed"
    check_paid_once(provider)


def test_what_was_asked_for_here_fails_where_the_key_is_refused(provider: Provider, start_service: Start) -> None:
    provider.options(api_key="sk-right")
    service = start_service(openai_api_key="sk-wrong")
    service.serve()
    service.create_batch(videos(*numbered(2), id="own"))
    final = service.process_batch("own").result(PATIENCE)
    assert [job.error.code for job in final.jobs if job.error] == ["authentication"] * 2
    assert service.key_refused


def test_a_serve_goes_on_when_its_key_is_accepted_later(
    provider: Provider, start_service: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.runtime._ASK_AGAIN", 0.05)
    provider.options(api_key="sk-right")
    service = start_service(openai_api_key="sk-early")
    service.create_batch(videos("a boat", id="b"))
    want(service, "b")
    service.serve()
    until(lambda: service.key_refused)
    provider.options(api_key="sk-early")
    until(lambda: service.get_batch_status("b").finished)
    assert service.get_batch_status("b").status == "completed"
    assert not service.key_refused
