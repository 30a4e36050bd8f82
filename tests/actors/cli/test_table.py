from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from actors.batch.job_views import Job
from actors.batch.views import Batch
from actors.cli.results import print_batch, summary
from actors.cli.text import cells, json_text, print_table, shown_path
from actors.service import BatchService
from actors.settings.server import SIMULATOR
from storage.states import BatchStatus, JobStatus
from tests.builders import NOON, a_batch, a_job, an_intent, put

Jobs = Callable[..., Job]
Batches = Callable[..., Batch]


def test_each_video_has_its_file_or_the_reason(
    make_job: Jobs, make_batch: Batches, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = [
        make_job(1, "completed"), make_job(2, "failed"), make_job(3, "completed"),
        make_job(4, "generating", progress=7), make_job(5),
    ]  # fmt: skip
    print_batch(make_batch(*jobs), {"nature-03": Path("films/03-x.mp4")})
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines[1:6]] == [
        ["1", "Prompt", "1", "completed", "/videos/nature-01.mp4"],
        ["2", "Prompt", "2", "failed", "server_error:", "it", "broke"],
        ["3", "Prompt", "3", "completed", "films/03-x.mp4"],
        ["4", "Prompt", "4", "generating", "7", "%"],
        ["5", "Prompt", "5", "pending"],
    ]


def test_a_long_path_is_not_cut_where_nobody_folds_lines(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(["a", "b"], [["1", "x" * 500], ["[bold]", "\x1b[31m"]])
    out = capsys.readouterr().out
    assert "x" * 500 in out
    assert "[bold]" in out
    assert "\x1b" not in out


JAPANESE = "富士山の上に昇る朝日と桜の花びらが風に舞う静かな湖のほとりの風景を描く"
FAILED = {"code": "server_error", "message": "the server could not make it: " + "why " * 20 + "ever", "retryable": True}
UNKNOWN = {"code": "submission_unknown", "message": "no answer", "retryable": False, "detail": None}


@pytest.fixture
def recorded(home: Path) -> list[str]:
    """A batch of each kind in the database; what is to be copied from a table of them."""
    stored = [str(home / "videos" / "batch-651a31340edf" / f"batch-651a31340edf-0{number}.mp4") for number in (1, 2)]
    prompts = ["A sunset over the ocean with many boats that come home", JAPANESE, "Short", "Sea"]
    states = [JobStatus.COMPLETED, JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.FAILED]
    jobs = [
        a_job(
            number, "batch-651a31340edf", status=state, prompt=prompt,
            video={"path": stored[number - 1], "bytes": 1, "sha256": "0", "content_type": "video/mp4"} if number < 3 else None,
            error=[None, None, FAILED, UNKNOWN][number - 1],
        )
        for number, (prompt, state) in enumerate(zip(prompts, states, strict=True), 1)
    ]  # fmt: skip
    batch = a_batch(
        "batch-651a31340edf", name="Nature scenes 日本の風景", status=BatchStatus.PARTIAL, total=4, completed=2, failed=2,
        provider=SIMULATOR, spent=12.0, started_at=NOON, completed_at=NOON + 86_400,
    )  # fmt: skip
    with BatchService() as service, service._database.connection(), service._database.begin():
        put(service._storage, batch, jobs)
    return [
        *(shown_path(path) for path in stored),
        "sora-batch retry batch-651a31340edf --simulate --job 4 --pay-again",
    ]


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_what_is_to_be_copied_is_never_broken_on_a_terminal(
    on_terminal: Callable[..., list[str]], recorded: list[str], columns: int
) -> None:
    lines = on_terminal(columns, "status", "batch-651a31340edf")
    for copied in recorded:
        assert any(copied in line for line in lines), (copied, lines)
    own_lines = {line for line in lines if line.strip() in recorded}  # longer than any terminal, perhaps
    assert max(cells(line) for line in lines if line not in own_lines) <= columns
    assert any("A sunset" in line for line in lines)
    assert "why ever" in " ".join(line.strip() for line in lines)  # folded, and whole


@pytest.mark.usefixtures("recorded")
@pytest.mark.parametrize("columns", [60, 80])
def test_a_list_fits_a_narrow_terminal_with_its_ids_whole(on_terminal: Callable[..., list[str]], columns: int) -> None:
    lines = on_terminal(columns, "list")
    assert any(line.split()[:1] == ["batch-651a31340edf"] for line in lines)
    assert max(map(cells, lines)) <= columns
    assert any("partial" in line and "2 of 4" in line and "Natur" in line for line in lines)


@pytest.mark.usefixtures("home")
def test_costs_and_settings_fit_a_narrow_terminal_with_their_ids_whole(on_terminal: Callable[..., list[str]]) -> None:
    batch_id = "batch-of-the-autumn-collection-2026-second-take-of-everything"
    with BatchService() as service, service._database.connection(), service._database.begin():
        service._storage.submissions.intend([an_intent("intent-1", a_job(1, batch_id))])
    lines = on_terminal(60, "costs", "--by", "batch")
    assert batch_id in lines
    assert max(cells(line) for line in lines if line != batch_id) <= 60
    assert max(cells(line) for line in on_terminal(60, "doctor") if "/" not in line) <= 60


@pytest.mark.usefixtures("recorded")
def test_a_wide_prompt_takes_no_room_of_the_others(on_terminal: Callable[..., list[str]]) -> None:
    lines = on_terminal(120, "status", "batch-651a31340edf")
    rows = [line for line in lines if line[:2] in ("1 ", "2 ", "3 ", "4 ")]
    starts = {cells(line[: max(line.find("completed"), line.find("failed"))]) for line in rows}
    assert (len(rows), len(starts)) == (4, 1)


@pytest.mark.usefixtures("recorded")
def test_the_time_in_which_nobody_worked_on_it_is_not_counted(call: Callable[..., Any]) -> None:
    assert "2 of 4 videos, 2 failed in 0:12\n" in call("status", "batch-651a31340edf").stdout


@pytest.mark.parametrize(
    ("states", "status", "expected"),
    [
        (("completed", "completed"), "completed", "batch nature (Nature scenes) completed: 2 of 2 videos in 0:12"),
        (("completed", "failed"), "partial", "partial: 1 of 2 videos, 1 failed in 0:12\nretry what failed: "),
        (("failed", "failed"), "failed", "failed: 0 of 2 videos in 0:12\nretry what failed: "),
        (("completed", "cancelled"), "cancelled", "cancelled: 1 of 2 videos in 0:12"),
    ],
)
def test_the_summary_says_how_it_ended_and_what_can_be_done(
    make_job: Jobs, make_batch: Batches, states: tuple[str, ...], status: str, expected: str
) -> None:
    batch = make_batch(*(make_job(number, state) for number, state in enumerate(states, 1)), status=status)
    batch = batch.model_copy(update={"completed_at": batch.created_at + timedelta(seconds=12)})
    assert expected in summary(batch)


def test_a_blocked_prompt_is_to_be_changed(make_job: Jobs, make_batch: Batches) -> None:
    error = {"code": "moderation_blocked", "message": "no", "retryable": False}
    text = summary(make_batch(make_job(1, "failed", error=error), status="failed"))
    assert text.endswith("sora-batch retry nature --job 1 --prompt PROMPT")


def test_an_unknown_submission_is_for_a_person_to_say(make_job: Jobs, make_batch: Batches) -> None:
    error = {"code": "submission_unknown", "message": "who knows", "retryable": False}
    text = summary(make_batch(make_job(2, "failed", error=error), status="failed"))
    assert "look for it again: sora-batch retry nature --job 2; to pay" in text
    assert text.endswith("perhaps twice: sora-batch retry nature --job 2 --pay-again")


def test_a_lost_video_can_be_paid_for_again(make_job: Jobs, make_batch: Batches) -> None:
    error = {"code": "not_found", "message": "gone", "retryable": False}
    lost = make_job(1, "failed", error=error, remote_id="video_1")
    text = summary(make_batch(lost, status="failed"), simulated=True)
    assert text.endswith("sora-batch retry nature --simulate --job 1 --pay-again")


def test_an_address_without_the_api_is_to_be_corrected(make_job: Jobs, make_batch: Batches) -> None:
    error = {"code": "not_found", "message": "http://h has no Videos API", "retryable": False}
    text = summary(make_batch(make_job(1, "failed", error=error), status="failed"))
    assert text.endswith("correct OPENAI_BASE_URL, then: sora-batch retry nature")
    assert "--pay-again" not in text


def test_a_key_that_was_refused_is_to_be_corrected(make_job: Jobs, make_batch: Batches) -> None:
    error = {"code": "authentication", "message": "HTTP 401", "retryable": True}
    text = summary(make_batch(make_job(1, "failed", error=error), status="failed"))
    assert text.endswith("correct OPENAI_API_KEY, then: sora-batch retry nature")


def test_an_address_at_which_others_were_made_is_not_to_be_corrected(make_job: Jobs, make_batch: Batches) -> None:
    error = {"code": "not_found", "message": "http://h has no Videos API", "retryable": False}
    jobs = make_job(1, "completed", remote_id="video_1"), make_job(2, "failed", error=error)
    assert summary(make_batch(*jobs, status="partial")).endswith("\nretry what failed: sora-batch retry nature")


def test_a_simulated_batch_is_retried_as_one(make_job: Jobs, make_batch: Batches) -> None:
    text = summary(make_batch(make_job(1, "failed"), status="failed"), simulated=True)
    assert text.endswith("sora-batch retry nature --simulate")


def test_a_batch_s_own_error_is_told_where_no_job_tells_it(make_job: Jobs, make_batch: Batches) -> None:
    error = {"code": "internal", "message": "three owners died", "retryable": True}
    assert "internal: three owners died" in summary(make_batch(make_job(1, "cancelled"), status="failed", error=error))


def test_json_holds_no_raw_control_characters() -> None:
    document: Any = {"prompt": "é\x1b\x7f\x9b"}
    text = json_text(document)
    assert json.loads(text) == document
    assert not any(127 <= ord(character) < 160 or character == "\x1b" for character in text)
