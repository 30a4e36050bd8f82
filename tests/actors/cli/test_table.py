from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from actors.cli.table import json_text, print_batch, print_table, summary
from actors.model import Batch, Job

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


@pytest.mark.parametrize(
    ("states", "status", "expected"),
    [
        (("completed", "completed"), "completed", "batch nature (Nature scenes) completed: 2 of 2 videos in 0:12"),
        (("completed", "failed"), "partial", "partial: 1 of 2 videos, 1 failed in 0:12\ntry what failed again: "),
        (("failed", "failed"), "failed", "failed: 0 of 2 videos in 0:12\ntry what failed again: "),
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
