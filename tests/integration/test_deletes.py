"""The DELETEs of cancelled videos: owed with the cancellation, sent by whoever uses the server, never under a retry."""

import os
import signal
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pytest_mock import MockerFixture
from typer.testing import CliRunner

from actors.batch.commands import Retry
from actors.cli.app import app
from actors.cli.follow import viewed
from actors.errors import Conflict
from actors.service import BatchService
from tests.integration.support import (
    PATIENCE,
    Drivers,
    check_files,
    check_paid_once,
    numbered,
    rows,
    until,
    videos,
)
from tests.provider.client import Provider

pytestmark = pytest.mark.integration

Start = Callable[..., BatchService]
Options = Callable[..., dict[str, Any]]
NEVER = {"sora_delete_on_cancel": "never"}
HANG = {"do": "hang", "accept": True}


@pytest.fixture(autouse=True)
def _no_long_pauses(mocker: MockerFixture) -> None:
    mocker.patch("actors.sora.deleting._LONGEST_PAUSE", 0.05)
    mocker.patch("actors.sora.deleting._IDLE_LOOK", 0.05)
    mocker.patch("actors.sora.deleting._GRACE", 0.05)


def in_the_making(service: BatchService, provider: Provider, count: int = 2, batch_id: str = "b") -> Any:
    """A batch with so many videos at the server."""
    provider.hold()
    service.create_batch(videos(*numbered(count, batch_id), id=batch_id, concurrency=count))
    running = service.process_batch(batch_id)
    until(lambda: service.get_batch_status(batch_id).progress.processing == count)
    until(lambda: all(job.status == "generating" for job in service.get_batch_status(batch_id).jobs))
    return running


def cancelled(service: BatchService, provider: Provider, count: int = 2, batch_id: str = "b") -> None:
    running = in_the_making(service, provider, count, batch_id)
    service.cancel_batch(batch_id)
    assert running.result(PATIENCE).status == "cancelled"


def write(service: BatchService, sql: str) -> None:
    service._recorder.write(lambda: service._database.execute(sql)).result(PATIENCE)


def nobody_is_waited_for(service: BatchService) -> None:
    """What was on its way from a killed or suspended process has had its time."""
    write(service, "UPDATE deletes SET due_at=0 WHERE state='out'")


def states(service: BatchService, batch_id: str = "b") -> list[str]:
    return [owed.delete.state for owed in service.deletes(batch_id)]


def submissions(service: BatchService, batch_id: str = "b") -> list[str]:
    """Of the jobs in their order."""
    return [submission.state for submission in sorted(service.submissions(batch_id), key=lambda each: each.job_id)]


def deletes(provider: Provider) -> int:
    return int(provider.summary()["requests"].get("delete", 0))


def some_time_passes(service: BatchService, provider: Provider) -> None:
    """Another batch is made from its start to its end: whatever was left running has had its chance."""
    provider.release("videos")
    batch = service.create_batch(videos("marker: video", "marker: another", concurrency=1))
    assert service.process_batch(batch.id).result(PATIENCE).status == "completed"


# --- what is sent, and by whom


def test_the_server_is_asked_to_stop(provider: Provider, service: BatchService) -> None:
    cancelled(service, provider)
    before = service.cancel_batch("b")
    provider.wait(deleted=2)
    until(lambda: submissions(service) == ["deleted"] * 2)
    assert states(service) == ["done"] * 2
    assert service.cancel_batch("b") == before
    assert deletes(provider) == 2


@pytest.mark.parametrize("label", ["after cancel", "before sending", "before DELETE", "after DELETE", "before deleted"])
def test_what_a_killed_process_owed_is_sent_by_the_next_one(
    label: str, provider: Provider, start_service: Start, drivers: Drivers, options: Options, tmp_path: Path
) -> None:
    serving = start_service()
    if label == "after cancel":
        serving.serve()  # idle: it finds what is owed by itself
    quiet = start_service(**NEVER)
    in_the_making(quiet, provider)
    assert drivers.run(options=options(), do="cancel", id="b", label=label)["ended"] == -signal.SIGKILL
    nobody_is_waited_for(serving)
    serving.serve()
    provider.wait(deleted=2)
    until(lambda: not rows(tmp_path, "SELECT 1 FROM deletes WHERE state IN ('owed', 'out')"))
    assert {row for (row,) in rows(tmp_path, "SELECT state FROM deletes")} == {"done"}


def test_a_process_that_makes_another_batch_sends_what_is_owed(
    provider: Provider, start_service: Start, drivers: Drivers, options: Options
) -> None:
    in_the_making(start_service(**NEVER), provider)
    drivers.run(options=options(), do="cancel", id="b", label="after cancel")
    service = start_service()
    assert states(service) == ["owed"] * 2
    service.create_batch(videos("another: video", id="other"))
    service.process_batch("other")
    provider.wait(deleted=2)


def test_a_process_without_the_server_owes_what_the_owner_sends(
    provider: Provider, start_service: Start, drivers: Drivers, options: Options
) -> None:
    provider.hold()
    drivers.start(options=options(), request=videos(*numbered(2), id="b"))
    provider.wait(accepted=2)
    service = start_service(openai_base_url=None)
    until(lambda: sum(job.status == "generating" for job in service.get_batch_status("b").jobs) == 2)
    service.cancel_batch("b")
    assert drivers.end()["said"]["status"] == "cancelled"
    assert states(service) == ["done"] * 2
    assert provider.summary()["deleted"] == 2


def test_ten_go_out_at_a_time(provider: Provider, start_service: Start) -> None:
    service = start_service(batch_max_size=12)
    provider.fault(on="delete", times=-1, **HANG)
    cancelled(service, provider, 12)
    provider.wait(hanging=10)
    assert (deletes(provider), sorted(states(service))) == (10, ["out"] * 10 + ["owed"] * 2)
    provider.clear_faults()
    provider.release("requests")
    until(lambda: states(service) == ["done"] * 12)


def test_the_server_is_never_asked_where_that_is_set(provider: Provider, start_service: Start) -> None:
    service = start_service(**NEVER)
    cancelled(service, provider)
    assert states(service) == []
    some_time_passes(service, provider)
    assert deletes(provider) == 0
    assert service.retry_batch("b").result(PATIENCE).status == "completed"
    check_paid_once(provider)


@pytest.mark.parametrize("never", ["sends nothing", "owes nothing"])
def test_a_process_that_never_deletes_sends_nothing_of_others(
    never: str, provider: Provider, start_service: Start, drivers: Drivers, options: Options
) -> None:
    service = start_service(**NEVER)
    in_the_making(service, provider)
    drivers.run(
        options=options(**(NEVER if never == "owes nothing" else {})), do="cancel", id="b", label="after cancel"
    )
    some_time_passes(service, provider)
    assert (states(service), deletes(provider)) == ([] if never == "owes nothing" else ["owed"] * 2, 0)


def test_a_video_that_we_adopted_is_never_deleted(provider: Provider, service: BatchService) -> None:
    provider.hold()
    provider.fault(on="create", do="lose_response", match="video 1")
    service.create_batch(videos(*numbered(2), id="b"))
    running = service.process_batch("b")
    until(lambda: sum(job.status == "generating" for job in service.get_batch_status("b").jobs) == 2)
    service.cancel_batch("b")
    assert running.result(PATIENCE).status == "cancelled"
    provider.wait(deleted=1)
    some_time_passes(service, provider)
    assert [v["prompt"] for v in provider.ledger()["videos"] if v["status"] == "deleted"] == ["a: video 2"]


def test_a_video_that_has_finished_is_not_deleted(
    provider: Provider, start_service: Start, drivers: Drivers, options: Options
) -> None:
    service = start_service()
    in_the_making(start_service(**NEVER, sora_poll_interval=600_000), provider)
    drivers.run(options=options(), do="cancel", id="b", label="after cancel")
    assert states(service) == ["owed"] * 2
    assert len(provider.finish()) == 2
    service.serve()
    until(lambda: states(service) == ["done"] * 2)
    assert deletes(provider) == 0
    final = service.retry_batch("b").result(PATIENCE)
    check_files(final, provider)
    check_paid_once(provider)


@pytest.mark.parametrize(("since", "sent"), [(0, True), (60, False)])
def test_what_can_not_be_looked_at_is_deleted_only_at_once(
    since: int, sent: bool, provider: Provider, start_service: Start, drivers: Drivers, options: Options
) -> None:
    service = start_service()
    in_the_making(start_service(**NEVER, sora_poll_interval=600_000), provider, 1)
    drivers.run(options=options(), do="cancel", id="b", label="after cancel")
    write(service, f"UPDATE deletes SET owed_at=owed_at-{since:d}")  # noqa: S608
    provider.fault(on="retrieve", do="answer", status=500, times=-1)
    service.serve()
    until(
        lambda: (
            states(service) == ["done"]
            if sent
            else (service.deletes("b")[0].delete.answer or "").startswith("not sent")
        )
    )
    assert deletes(provider) == sent


def test_nothing_is_owed_for_a_video_whose_file_comes(provider: Provider, service: BatchService) -> None:
    provider.fault(on="content", do="stall")
    service.create_batch(videos("a: video", id="b"))
    running = service.process_batch("b")
    until(lambda: service.get_batch_status("b").jobs[0].status == "downloading")
    service.cancel_batch("b")
    assert running.result(PATIENCE).status == "cancelled"
    assert states(service) == []


# --- what ends it


@pytest.mark.parametrize("status", [404, 405, 501])
def test_a_server_that_does_not_delete_is_asked_once(status: int, provider: Provider, service: BatchService) -> None:
    provider.fault(on="delete", do="answer", status=status, times=-1)
    cancelled(service, provider)
    until(lambda: states(service) == ["done"] * 2)
    some_time_passes(service, provider)
    assert (deletes(provider), submissions(service)) == (2, ["bound"] * 2)
    assert {charge.state for charge in service.cancel_batch("b").may_be_charged} == {"generating"}


@pytest.mark.parametrize(
    "fault",
    [
        {"do": "answer", "status": 409},
        {"do": "answer", "status": 429, "headers": {"Retry-After-Ms": "60"}},
        {"do": "answer", "status": 503},
        {"do": "lose_request"},
        {"do": "reset"},
    ],
    ids=str,
)
def test_what_passes_leaves_it_owed(fault: dict[str, Any], provider: Provider, service: BatchService) -> None:
    provider.fault(on="delete", match="video 1", times=3, **fault)
    cancelled(service, provider)
    until(lambda: submissions(service) == ["deleted"] * 2)
    assert deletes(provider) == 5


def test_an_answer_is_waited_for_longer_than_a_server_takes_to_stop_a_video(
    provider: Provider, service: BatchService, mocker: MockerFixture
) -> None:
    mocker.patch("actors.runtime._DELETE_SECONDS", 0.1)
    provider.fault(on="delete", do="hang", seconds=2.5, times=-1)
    cancelled(service, provider)
    provider.wait(hanging=2)
    service.finish_deletes()
    assert submissions(service) == ["deleted"] * 2
    assert deletes(provider) == 2


@pytest.mark.parametrize(("listing", "state"), [("whole", "deleted"), ("partial", "bound")])
def test_a_404_is_our_doing_only_after_one_that_had_no_answer_where_one_store_is(
    listing: str, state: str, provider: Provider, start_service: Start
) -> None:
    service = start_service(sora_listing=listing)
    provider.fault(on="delete", do="lose_response", match="video 1")
    cancelled(service, provider)
    until(lambda: states(service) == ["done"] * 2)
    assert submissions(service) == [state, "deleted"]


@pytest.mark.parametrize("status", [200, 404])
def test_another_key_s_answer_proves_no_deletion(status: int, provider: Provider, start_service: Start) -> None:
    service = start_service(sora_listing="whole")
    other = start_service(openai_api_key="sk-another", sora_listing="whole", batch_lease=5000)
    in_the_making(start_service(**NEVER), provider)
    provider.fault(on="delete", do="answer", status=503, match="video 1", times=-1)
    provider.fault(on="delete", do="answer", status=status, match="video 2", times=-1)
    other.serve()
    other.cancel_batch("b")
    until(lambda: sorted(states(service)) == ["done", "owed"])
    assert submissions(service) == ["bound"] * 2
    assert rows(Path(other.database_place).parent, "SELECT own_key FROM deletes") == [(0,)] * 2


def test_it_is_given_up_after_a_day(provider: Provider, service: BatchService) -> None:
    provider.fault(on="delete", do="answer", status=503, times=-1)
    cancelled(service, provider, 1)
    until(lambda: deletes(provider) > 1)
    write(service, "UPDATE deletes SET tried_at=tried_at-86400")
    until(lambda: states(service) == ["given_up"])
    sent = deletes(provider)
    (found,) = service.audit().owed_deletes
    assert (found.job_id, found.state, found.answer) == ("b-01", "given_up", "DELETE after the cancellation: HTTP 503")
    service.cancel_batch("b")  # a person's word: once more
    until(lambda: deletes(provider) > sent)


# --- the server that removes only its record


def only_the_record(provider: Provider) -> None:
    body = {"id": "video", "object": "video", "status": "deleted", "progress": 10}
    provider.fault(on="delete", do="answer", status=200, body=body, accept=False, times=-1)


def test_a_video_whose_record_alone_was_removed_is_paid_again_only_with_consent(
    provider: Provider, service: BatchService, mocker: MockerFixture
) -> None:
    mocker.patch("actors.sora.deleting._AT_ONCE", 1)
    only_the_record(provider)
    cancelled(service, provider)
    until(lambda: sorted(states(service)) == ["done", "record_only"])
    assert (deletes(provider), submissions(service)) == (1, ["bound"] * 2)
    (gone,) = [owed.submission.job_id for owed in service.deletes("b") if owed.delete.state == "record_only"]
    with pytest.raises(Conflict, match=f"deleted its record of the video of {gone}"):
        service.retry_batch("b", [gone])
    provider.release("videos")
    assert service.retry_batch("b").result(PATIENCE).progress.completed == 1  # the other one is still there
    assert provider.summary()["posts"] == 2
    final = service.retry_batch("b", pay_again=True).result(PATIENCE)
    assert (final.status, provider.summary()["posts"]) == ("completed", 3)


def test_no_further_delete_is_sent_to_a_server_that_removes_only_its_records(
    provider: Provider, service: BatchService, start_service: Start
) -> None:
    only_the_record(provider)
    cancelled(service, provider, 1)
    until(lambda: states(service) == ["record_only"])
    for number, each in enumerate([service, start_service(openai_api_key="sk-another")]):
        cancelled(each, provider, 1, f"more-{number}")
        assert states(each, f"more-{number}") == []
    assert deletes(provider) == 1


@pytest.mark.parametrize("style", ["uuid", "hex"])
def test_where_a_delete_may_remove_only_the_record_a_single_one_shows_it(
    style: str, provider: Provider, service: BatchService
) -> None:
    provider.options(id_style=style)
    only_the_record(provider)
    cancelled(service, provider, 4)
    until(lambda: sorted(states(service)) == ["done"] * 3 + ["record_only"])
    assert deletes(provider) == 1
    provider.release("videos")
    assert service.retry_batch("b").result(PATIENCE).progress.completed == 3
    check_paid_once(provider)


@pytest.mark.parametrize("style", ["uuid", "hex"])
def test_a_delete_that_stops_videos_is_sent_for_each_whatever_their_ids(
    style: str, provider: Provider, service: BatchService
) -> None:
    provider.options(id_style=style)
    cancelled(service, provider, 4)
    until(lambda: submissions(service) == ["deleted"] * 4)
    assert deletes(provider) == 4


# --- a retry


def test_what_was_deleted_is_paid_anew_by_a_retry(provider: Provider, service: BatchService) -> None:
    cancelled(service, provider)
    until(lambda: submissions(service) == ["deleted"] * 2)
    provider.release("videos")
    final = service.retry_batch("b").result(PATIENCE)
    assert final.status == "completed"
    assert provider.summary()["paid_twice"] == []
    check_files(final, provider)


def test_a_retry_withdraws_what_is_owed(
    provider: Provider, start_service: Start, drivers: Drivers, options: Options
) -> None:
    first = start_service(**NEVER)
    in_the_making(first, provider)
    drivers.run(options=options(), do="cancel", id="b", label="after cancel")
    first.close()  # it would fetch the videos, too, before it finds out
    service = start_service()  # one that sends what is owed, too
    running = service.retry_batch("b")
    assert states(service) == ["withdrawn"] * 2
    provider.release()
    check_files(running.result(PATIENCE), provider)
    assert deletes(provider) == 0
    check_paid_once(provider)


def owed_by_several(start_service: Start, provider: Provider, *batch_ids: str) -> BatchService:
    """Batches that somebody without the server has cancelled."""
    service = start_service(**NEVER)
    for batch_id in batch_ids:
        in_the_making(service, provider, 1, batch_id)
    service.close()
    offline = start_service(openai_base_url=None)
    for batch_id in batch_ids:
        offline.cancel_batch(batch_id)
    assert [states(offline, batch_id) for batch_id in batch_ids] == [["owed"]] * len(batch_ids)
    return offline


def test_a_program_that_retries_batches_in_turn_deletes_no_video_that_it_wants(
    provider: Provider, start_service: Start, mocker: MockerFixture
) -> None:
    mocker.patch("actors.sora.deleting._GRACE", PATIENCE)
    owed_by_several(start_service, provider, "a", "b", "c")
    service = start_service()
    running = []
    for batch_id in "abc":
        running.append(service.retry_batch(batch_id))
        polled = provider.summary()["requests"]["retrieve"]
        provider.wait(requests_retrieve=polled + 10)  # what is owed would have been looked at by now
    provider.release("videos")
    assert [each.result(PATIENCE).status for each in running] == ["completed"] * 3
    assert deletes(provider) == 0
    check_paid_once(provider)


def test_a_service_deletes_no_video_that_the_commands_it_finds_retry(
    provider: Provider, start_service: Start, mocker: MockerFixture
) -> None:
    mocker.patch("actors.sora.deleting._GRACE", PATIENCE)
    owed_by_several(start_service, provider, "a", "b")
    service = start_service()
    service.serve()
    for batch_id in "ab":
        service.obey(Retry(batch_id), None, lambda _: "")
        polled = provider.summary()["requests"].get("retrieve", 0)
        provider.wait(requests_retrieve=polled + 10)
    provider.release("videos")
    until(lambda: all(service.get_batch_status(batch_id).status == "completed" for batch_id in "ab"))
    assert deletes(provider) == 0
    check_paid_once(provider)


def test_what_no_retry_wants_is_deleted_after_a_grace(provider: Provider, start_service: Start) -> None:
    offline = owed_by_several(start_service, provider, "a", "b")
    service = start_service()
    service.retry_batch("a")
    provider.wait(deleted=1)
    until(lambda: (states(offline, "a"), states(offline, "b")) == (["withdrawn"], ["done"]))


def test_a_program_that_ends_sends_what_it_has_put_off(
    provider: Provider, start_service: Start, mocker: MockerFixture
) -> None:
    mocker.patch("actors.sora.deleting._GRACE", PATIENCE)
    offline = owed_by_several(start_service, provider, "a", "b")
    service = start_service()
    service.retry_batch("a")
    service.close()
    assert (states(offline, "a"), states(offline, "b")) == (["withdrawn"], ["done"])


def test_retrying_a_batch_sends_no_delete_that_the_next_one_withdraws(
    provider: Provider, start_service: Start, command: Callable[..., Any], mocker: MockerFixture
) -> None:
    owed_by_several(start_service, provider, "a", "b")

    def viewed_when_the_first_is_watched(other: BatchService, batch_id: str) -> Any:
        if batch_id == "b":
            polled = provider.summary()["requests"]["retrieve"]
            provider.wait(requests_retrieve=polled + 10)
            provider.release("videos")
        return viewed(other, batch_id)

    mocker.patch("actors.cli.follow.viewed", viewed_when_the_first_is_watched)
    said = command("retry", "a", "b")
    assert said.exit_code == 0, said.stderr
    assert deletes(provider) == 0
    check_paid_once(provider)


def test_what_a_version_before_retries_is_not_deleted(
    provider: Provider, start_service: Start, drivers: Drivers, options: Options
) -> None:
    in_the_making(start_service(**NEVER), provider)
    drivers.run(options=options(), do="cancel", id="b", label="after cancel")
    service = start_service()
    write(service, "UPDATE jobs SET status='generating' WHERE id='b-01'")
    service.serve()
    until(lambda: sorted(states(service)) == ["done", "withdrawn"])
    assert deletes(provider) == 1


def test_a_retry_waits_for_one_that_is_on_its_way(provider: Provider, service: BatchService) -> None:
    provider.fault(on="delete", match="video 1", **HANG)
    provider.fault(on="delete", do="answer", status=503, match="video 2", times=-1)
    cancelled(service, provider)
    provider.wait(hanging=1)
    with ThreadPoolExecutor() as threads:
        retrying: Future[Any] = threads.submit(service.retry_batch, "b")
        some_time_passes(service, provider)
        assert not retrying.done()
        provider.release()
        final = retrying.result(PATIENCE).result(PATIENCE)
    check_files(final, provider)
    assert final.status == "completed"
    # The first was deleted before it was retried, and paid anew; the second one is the same video as before.
    assert provider.summary()["posts_per_prompt"] == {
        "b: video 1": 2,
        "b: video 2": 1,
        "marker: video": 1,
        "marker: another": 1,
    }
    assert provider.summary()["paid_twice"] == []


def test_a_retry_that_waits_for_those_that_are_out_lets_no_other_go(provider: Provider, start_service: Start) -> None:
    service = start_service(batch_max_size=14)
    provider.fault(on="delete", times=10, **HANG)
    cancelled(service, provider, 14)
    provider.wait(hanging=10)
    with ThreadPoolExecutor() as threads:
        retrying: Future[Any] = threads.submit(service.retry_batch, "b")
        until(lambda: states(service).count("withdrawn") == 4)
        provider.release()
        final = retrying.result(PATIENCE).result(PATIENCE)
    assert final.status == "completed"
    assert deletes(provider) == 10
    assert provider.summary()["posts"] == 24


def test_what_a_retry_lets_go_of_is_deleted_all_the_same(provider: Provider, service: BatchService) -> None:
    provider.fault(on="delete", do="answer", status=503, times=2)
    cancelled(service, provider)
    until(lambda: deletes(provider) >= 2)
    running = service.retry_batch("b", job_ids=["b-01"], changes={"b-01": {"prompt": "b: another"}})
    until(lambda: deletes(provider) >= 4)
    provider.release("videos")
    assert running.result(PATIENCE).jobs[0].status == "completed"
    assert sorted(submissions(service)) == ["abandoned", "bound", "deleted"]
    gone = {video["prompt"] for video in provider.ledger()["videos"] if video["status"] == "deleted"}
    assert gone == {"b: video 1", "b: video 2"}


def test_a_video_whose_post_is_answered_after_the_cancellation_is_deleted(
    provider: Provider, service: BatchService
) -> None:
    provider.hold()
    provider.fault(on="create", **HANG)
    service.create_batch(videos("b: late", id="b"))
    running = service.process_batch("b")
    provider.wait(hanging=1)
    service.cancel_batch("b")
    assert running.result(PATIENCE).status == "cancelled"
    until(lambda: service._runtime is not None and service._runtime._tools.submitter._unawaited)
    provider.release("requests")
    until(lambda: submissions(service) == ["deleted"])


def test_a_second_cancellation_owes_nothing_for_what_had_finished(provider: Provider, service: BatchService) -> None:
    provider.fault(on="content", do="hang", accept=False, then="answer")
    running = service.process_batch(service.create_batch(videos("b: done", id="b")).id)
    until(lambda: service.get_batch_status("b").jobs[0].status == "downloading")
    service.cancel_batch("b")
    assert running.result(PATIENCE).status == "cancelled"
    service.cancel_batch("b")
    assert states(service) == []


def test_nothing_is_started_while_the_end_waits_for_deletes(provider: Provider, start_service: Start) -> None:
    service = start_service(batch_max_size=20)
    provider.fault(on="delete", do="hang", accept=True, seconds=1.5, then="answer", times=-1)
    cancelled(service, provider, 1)
    provider.wait(hanging=1)  # a video that has finished would not be deleted
    provider.release("videos")
    provider.options(latency=0.05)
    service.process_batch(service.create_batch(videos(*numbered(20, "c"), id="c", concurrency=1)).id)
    until(lambda: service.get_batch_status("c").progress.processing > 0)
    before = provider.summary()["posts"]
    service.close()
    assert provider.summary()["posts"] <= before + 2


def test_a_retry_finds_out_that_a_silent_delete_was_done(
    provider: Provider, start_service: Start, mocker: MockerFixture
) -> None:
    service = start_service(sora_listing="whole")
    mocker.patch("actors.video.setbacks._LOST_AFTER", 0.5)
    mocker.patch("actors.sora.deleting._LONGEST_PAUSE", 3600.0)
    mocker.patch("actors.sora.deleting.backoff", return_value=3600.0)
    provider.fault(on="delete", do="lose_response")
    cancelled(service, provider, 1)
    until(lambda: states(service) == ["owed"] and deletes(provider) == 1)
    provider.release("videos")
    final = service.retry_batch("b").result(PATIENCE)
    check_files(final, provider)
    assert (submissions(service), provider.summary()["paid_twice"]) == (["deleted", "bound"], [])


# --- its time


def test_one_whose_time_has_passed_is_not_sent(
    provider: Provider, service: BatchService, mocker: MockerFixture, tmp_path: Path
) -> None:
    mocker.patch("actors.sora.deleting.SEND_WINDOW", -1.0)
    not_sent = mocker.spy(service._storage.deletes, "not_sent")
    cancelled(service, provider, 1)
    until(lambda: not_sent.call_count == 2)
    assert deletes(provider) == 0
    until(lambda: rows(tmp_path, "SELECT state, tries, own_key FROM deletes") == [("owed", 0, 0)])


def test_one_that_was_suspended_after_its_record_is_not_sent(
    provider: Provider, start_service: Start, drivers: Drivers, options: Options
) -> None:
    service, first = start_service(), start_service(**NEVER)
    in_the_making(first, provider, 1)
    provider.fault(on="delete", do="answer", status=503, times=-1)
    late = drivers.start(options=options(), do="cancel", id="b", label="before DELETE", how="stop")
    while "stopped" not in drivers.told(late):
        pass
    first.close()  # it would fetch the video, too, before it finds out
    # No answer of it has to be waited for: it is not sent yet, and may be for 2 s from its record on.
    write(service, "UPDATE deletes SET due_at=due_at-10.9")
    provider.release("videos")
    final = service.retry_batch("b").result(PATIENCE)
    os.kill(late, signal.SIGCONT)
    assert drivers.end(late)["ended"] == 0
    check_files(final, provider)
    assert deletes(provider) == 0


# --- what a person sees


@pytest.fixture
def command(options: Options, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Any]:
    monkeypatch.chdir(tmp_path)
    for name, value in options().items():
        monkeypatch.setenv(name.upper(), str(value))
    return lambda *words: CliRunner().invoke(app, [*words])


def test_what_is_still_owed_is_told(
    provider: Provider, start_service: Start, command: Callable[..., Any], mocker: MockerFixture
) -> None:
    mocker.patch("actors.runtime._DELETE_SECONDS", 0.1)
    mocker.patch("actors.sora.deleting.backoff", return_value=3600.0)
    in_the_making(start_service(**NEVER), provider)
    provider.fault(on="delete", do="answer", status=503, times=-1)
    said = command("cancel", "b")
    assert said.exit_code == 0
    assert "2 DELETEs are still pending; the next process that uses this server sends them" in said.stderr
    told = command("history", "b").stdout.splitlines()[-2:]
    assert ["its DELETE is pending since" in line and "HTTP 503" in line for line in told] == [True] * 2
    found = command("audit")
    assert (found.exit_code, found.stdout.count("its DELETE is pending since")) == (1, 2)
    assert f"{datetime.now(UTC).astimezone():%Y-%m-%d}" in found.stdout


def test_what_came_of_them_is_told(provider: Provider, start_service: Start, command: Callable[..., Any]) -> None:
    in_the_making(start_service(**NEVER), provider)
    said = command("cancel", "b")
    assert (said.exit_code, said.stderr) == (0, "")
    told = command("history", "b").stdout.splitlines()[-2:]
    assert [line.endswith(": DELETE after the cancellation: HTTP 200") for line in told] == [True] * 2
    assert command("audit").exit_code == 0
