"""The commands as a user calls them, against a real server: the simulator."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from actors.cli.follow import Journal
from actors.errors import BatchReleased
from actors.service import BatchService
from actors.service.waiting import RunningBatch
from actors.settings.server import SIMULATOR
from actors.simulator import Simulator
from storage.charges import ToldPrice
from storage.states import BatchStatus, ChargeState, JobStatus, SubmissionState
from tests.builders import a_batch, a_job, an_intent, put

Call = Callable[..., Any]
pytestmark = pytest.mark.usefixtures("server")


def test_run_makes_the_videos_and_tells_where_they_are(call: Call, home: Path) -> None:
    (home / "prompts.txt").write_text("A sunset\nA mountain\n")
    result = call("run", "prompts.txt", "-p", "City lights", "--name", "Nature", "-m", "team=blue", "--output", "films")
    assert result.exit_code == 0, result.stderr
    assert "3 of 3 videos" in result.stdout
    assert "films/01-a-sunset.mp4" in result.stdout
    names = sorted(path.name for path in (home / "films").iterdir())
    assert names == ["01-a-sunset.mp4", "02-a-mountain.mp4", "03-city-lights.mp4"]


def test_progress_is_told_on_standard_error_a_line_an_event(call: Call) -> None:
    result = call("run", "-p", "A sunset", "--id", "nature")
    lines = [line[9:] for line in result.stderr.splitlines()]
    completed = r"nature-01 completed videos/nature/nature-01-[0-9a-f]{8}\.mp4 \(1 of 1\)"
    assert [line for line in lines if re.fullmatch(completed, line)]
    assert lines[-1] == "nature completed 1 of 1 video"


def test_json_is_the_batch_and_nothing_else(call: Call) -> None:
    result = call("run", "-p", "A sunset \x9b1m", "--json", "-m", "team=blue", "--size", "64x64", "--duration", "2")
    batch = json.loads(result.stdout)
    assert (batch["status"], batch["metadata"]) == ("completed", {"team": "blue"})
    assert (batch["jobs"][0]["size"], batch["jobs"][0]["duration"]) == ("64x64", 2)


def test_quiet_prints_the_paths_and_nothing_else(call: Call) -> None:
    result = call("run", "-p", "A sunset", "-p", "blood", "--id", "nature", "--quiet", "--output", "films")
    assert result.exit_code == 3
    assert result.stdout == "films/01-a-sunset.mp4\n"
    assert result.stderr.startswith("sora-batch: nature-02 failed: moderation_blocked: ")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(("prompts", "code"), [(["Sea"], 0), (["blood"], 1), (["Sea", "blood"], 3)])
def test_the_exit_code_says_how_the_batch_ended(call: Call, prompts: list[str], code: int) -> None:
    options = [part for prompt in prompts for part in ("-p", prompt)]
    assert call("run", *options).exit_code == code


def test_a_run_tells_each_thing_once_unless_the_log_is_asked_for(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOG_LEVEL", "info")
    assert "recorded job.completed" in call("run", "-p", "Sea", "--id", "two").stderr
    monkeypatch.delenv("LOG_LEVEL")
    assert "recorded job.completed" not in (said := call("run", "-p", "Sea", "--id", "one").stderr)
    assert "claimed the batch" not in said
    assert said.count("one-01 completed") == 1


def test_run_again_with_the_same_id_goes_on_with_the_batch(call: Call, server: Simulator) -> None:
    for _ in range(2):
        assert call("run", "-p", "Sea", "--id", "nature", "-o", "films").exit_code == 0
    assert server.creates == 1
    assert call("run", "-p", "Another", "--id", "nature").exit_code == 2


def test_a_batch_comes_from_standard_input(call: Call) -> None:
    result = call("run", "-", "--json", "--model", "m", stdin=b"prompt,model\nSea,\nSky,sora-2\n")
    assert [job["model"] for job in json.loads(result.stdout)["jobs"]] == ["m", "sora-2"]


def test_status_list_and_history_tell_of_it(call: Call) -> None:
    batch = json.loads(call("run", "-p", "Sea", "-p", "blood", "--id", "nature", "-m", "team=blue", "--json").stdout)
    status = json.loads(call("status", "nature", "--json").stdout)
    assert {each["job_id"] for each in status.pop("submissions")} == {job["id"] for job in batch["jobs"]}
    assert status == batch
    assert "1 of 2 videos, 1 failed" in call("status", "nature").stdout
    assert [entry["id"] for entry in json.loads(call("list", "--json", "-m", "team=blue").stdout)] == ["nature"]
    assert "nature" in call("list", "--status", "partial").stdout
    assert "no matching batches" in call("list", "--status", "failed").stdout
    events = [json.loads(line) for line in call("history", "nature", "--json").stdout.splitlines()]
    assert [int(event["sequence"]) for event in events] == list(range(1, len(events) + 1))
    assert events[-1]["type"] == "sora-batch.batch.partial.v1"
    last = call("history", "nature", "--from", str(len(events))).stdout
    assert last.count("\n") == 1
    assert "batch.partial" in last


def test_history_gives_events_as_they_were_recorded(call: Call) -> None:
    call("run", "-p", "Sea é", "--id", "nature")
    with BatchService() as service, service._database.connection():
        recorded = [json.loads(record.body) for record in service._storage.journal.read("nature")]
    assert [json.loads(line) for line in call("history", "nature", "--json").stdout.splitlines()] == recorded


def test_retry_makes_what_failed_with_another_prompt(call: Call, server: Simulator) -> None:
    assert call("run", "-p", "Sea", "-p", "blood", "--id", "nature").exit_code == 3
    result = call("retry", "nature", "--job", "2", "--prompt", "A calm sea", "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["jobs"][1]["prompt"] == "A calm sea"
    assert server.creates == 3


LOST = {"code": "submission_unknown", "message": "who knows", "retryable": False, "detail": None}
BROKEN = {"code": "server_error", "message": "it broke", "retryable": True, "detail": None}


def failed_batch(*errors: dict[str, Any], provider: str | None = None) -> None:
    """A batch with a failed video for each error."""
    jobs = [a_job(position, status=JobStatus.FAILED, error=error) for position, error in enumerate(errors, start=1)]
    batch = a_batch(status=BatchStatus.FAILED, total=len(jobs), failed=len(jobs), provider=provider)
    with BatchService() as service, service._database.connection(), service._database.begin():
        put(service._storage, batch, jobs)


def test_a_retry_says_what_it_leaves_alone(call: Call) -> None:
    failed_batch(LOST, BROKEN)
    result = call("retry", "nature")
    assert result.exit_code == 3
    assert "video 1 is not retried: whether it was made is unknown" in result.stderr
    assert "retry nature --job 1 --pay-again" in result.stderr


def test_a_retry_of_a_simulated_batch_that_leaves_all_alone_says_how_to_name_them(call: Call) -> None:
    failed_batch(LOST, provider="simulator")
    result = call("retry", "nature", "--simulate")
    assert result.exit_code == 2
    assert "to look for it again: sora-batch retry nature --simulate --job 1;" in result.stderr
    assert "has no job to retry" in result.stderr


@pytest.mark.usefixtures("server")
def test_a_retry_at_a_moved_server_that_leaves_all_alone_says_how_to_name_them_there(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SORA_SUBMIT_TIMEOUT", "1000")
    monkeypatch.setenv("SORA_SETTLE", "100")
    failed_batch(LOST, provider="http://h.example/v1#0")
    with BatchService() as service, service._database.connection(), service._database.begin():
        there = an_intent("intent-1", a_job(), provider="http://h.example/v1#0", state=SubmissionState.UNKNOWN)
        service._storage.submissions.intend([there])
    assert "add --move-server to the retry" in call("retry", "nature", "--job", "1").stderr
    advised = "sora-batch retry nature --move-server --job 1"
    assert f"to look for it again: {advised};" in call("retry", "nature", "--move-server").stderr
    assert call(*advised.split()[1:]).exit_code == 1, "it was looked for at the new address, and is not there"


@pytest.mark.parametrize(("provider", "options"), [("simulator", " --simulate"), ("http://h/v1#0", "")])
def test_the_advice_of_status_works_as_it_stands(call: Call, provider: str, options: str) -> None:
    failed_batch(BROKEN, provider=provider)
    assert call("status", "nature").stdout.endswith(f"sora-batch retry nature{options}\n")


def test_a_key_that_was_wrong_is_mended_by_a_retry(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "wrong")
    result = call("run", "-p", "Sea", "-p", "Sky", "-c", "1", "--id", "nature")
    assert result.exit_code == 1
    assert "authentication: " in result.stdout
    monkeypatch.setenv("OPENAI_API_KEY", "the-key")
    result = call("retry", "nature")
    assert result.exit_code == 0, result.stderr


def test_the_announced_limit_is_the_one_that_holds(call: Call) -> None:
    assert "2 videos, 1 at a time" in call("run", "-p", "Sea", "-p", "Sky", "-c", "1").stderr
    assert "1 video, 1 at a time" in call("run", "-p", "Sea").stderr


def test_cancel_tells_what_it_did_and_what_can_be_charged(call: Call) -> None:
    with BatchService() as service:
        service.create_batch({"id": "nature", "videos": [{"prompt": "Sea"}, {"prompt": "Sky"}]})
    assert "cancelled: 2 of 2 videos cancelled" in call("cancel", "nature", "--reason", "no").stdout
    summary = json.loads(call("cancel", "nature", "--json").stdout)
    assert (summary["cancelled"], summary["total"], summary["may_be_charged"]) == (2, 2, [])
    result = call("resume", "nature", "--quiet")
    assert (result.exit_code, result.stderr) == (
        4,
        "sora-batch: nature-01 cancelled: no\nsora-batch: nature-02 cancelled: no\n",
    )


def test_history_tells_what_a_post_met_whose_answer_told_nothing(call: Call) -> None:
    failed_batch(LOST, LOST)
    with BatchService() as service, service._database.connection(), service._database.begin():
        submissions = service._storage.submissions
        submissions.intend([an_intent(f"intent-{position}", a_job(position)) for position in (1, 2)])
        submissions.unanswered("intent-1", "no answer: ServerDisconnectedError", timed_out=False)
        submissions.unanswered("intent-2", "creating the video failed with HTTP 500", timed_out=False)
        submissions.bind("intent-2", "video_2", adopted=True)
    assert call("history", "nature").stdout.splitlines() == [
        "      nature-01: attempt 1: no usable answer to the POST (no answer: ServerDisconnectedError); whether it was made is unknown (submission intent-1)",
        "      nature-02: attempt 1: no usable answer to the POST (creating the video failed with HTTP 500); its video was found (submission intent-2)",
    ]


def test_prices_that_the_server_told_are_shown(call: Call) -> None:
    failed_batch(LOST, LOST)
    with BatchService() as service, service._database.connection(), service._database.begin():
        submissions = service._storage.submissions
        submissions.intend([an_intent(f"intent-{position}", a_job(position)) for position in (1, 2)])
        submissions.tell("intent-2", {"x-litellm-response-cost": "0.40"})
        submissions.tell("intent-2", {"usage.cost": 0.4})
    assert call("history", "nature").stdout == (
        "      nature-02: attempt 1: the server reported x-litellm-response-cost 0.40, usage.cost 0.4\n"
    )
    told = json.loads(call("status", "nature", "--json").stdout)
    assert told["prices"] == [
        {"job_id": "nature-02", "submission_id": "intent-2", "x-litellm-response-cost": "0.40", "usage.cost": 0.4}
    ]
    assert told["submissions"] == [
        {"job_id": f"nature-0{number}", "submission_id": f"intent-{number}", "state": "intended", "charge": None}
        for number in (1, 2)
    ]


def test_a_told_price_that_is_not_believed_is_flagged_wherever_prices_are_shown(call: Call, caplog: Any) -> None:
    failed_batch(LOST)
    with BatchService() as service, service._database.connection(), service._database.begin():
        submissions = service._storage.submissions
        priced = an_intent("intent-1", a_job(), currency="USD", reserved_micros=400_000, charge=ChargeState.RESERVED)
        submissions.intend([priced])
        for _ in range(2):
            submissions.tell("intent-1", {"usage.cost": 0}, ToldPrice("USD", Decimal(0)))
    doubt = "reported 0 USD, but the model has a price"
    assert [record.getMessage() for record in caplog.records].count(f"flagged the price of a submission: {doubt}") == 1
    assert call("history", "nature").stdout == (
        f"      nature-01: attempt 1: the server reported usage.cost 0; flagged: {doubt} (submission intent-1)\n"
    )
    assert json.loads(call("status", "nature", "--json").stdout)["prices"] == [
        {"job_id": "nature-01", "submission_id": "intent-1", "usage.cost": 0, "doubt": doubt}
    ]
    assert "flagged: the price reported for 1 submission is implausible" in call("costs").stdout
    assert json.loads(call("costs", "--json").stdout)["flagged"] == 1
    with BatchService() as service:
        service.settle_cost("intent-1", "0.30 USD")
        assert (service.costs().flagged, service.costs(since="1d").flagged) == (0, 0)


def test_the_takes_of_a_prompt_are_told_apart(call: Call) -> None:
    jobs = [a_job(take, prompt="a very long prompt " * 9, options={"take": take}) for take in (1, 2)]
    with BatchService() as service, service._database.connection(), service._database.begin():
        put(service._storage, a_batch(total=2), jobs)
    _, first, second, _ = call("status", "nature").stdout.splitlines()
    assert "take" not in first
    assert "a very long prompt a very long…, take 2" in second


def test_a_warning_is_shown_once_for_all_videos_that_it_is_of(call: Call) -> None:
    def made(seconds: int) -> dict[str, Any]:
        message = f"asked for duration 12 s; the file has {seconds} s"
        warning = {"code": "duration_differs", "message": message, "asked": 12, "made": seconds}
        return {"reported": None, "warnings": [warning]}

    jobs = [a_job(position, status=JobStatus.COMPLETED, made=made(8)) for position in range(1, 8)]
    jobs.append(a_job(8, status=JobStatus.COMPLETED, made=made(4)))
    with BatchService() as service, service._database.connection(), service._database.begin():
        put(service._storage, a_batch(status=BatchStatus.COMPLETED, total=8, completed=8), jobs)
    assert call("status", "nature").stdout.splitlines()[-2:] == [
        "warning: videos 1, 2, 3, 4, 5 and 2 more: asked for duration 12 s; the file has 8 s",
        "warning: video 8: asked for duration 12 s; the file has 4 s",
    ]


def test_history_tells_what_the_server_answered_to_a_delete(call: Call) -> None:
    jobs = [a_job(position, status=JobStatus.CANCELLED) for position in (1, 2, 3)]
    with BatchService() as service, service._database.connection(), service._database.begin():
        storage = service._storage
        put(storage, a_batch(status=BatchStatus.CANCELLED, total=3, cancelled=3), jobs)
        for job in jobs:
            storage.submissions.intend([an_intent(f"intent-{job.position}", job)])
            storage.submissions.bind(f"intent-{job.position}", f"video_{job.position}")
        storage.submissions.settle("intent-1", SubmissionState.DELETED, "DELETE after the cancellation: HTTP 200")
        storage.submissions.annotate("intent-2", "DELETE after the cancellation: HTTP 405")
    assert call("history", "nature").stdout.splitlines() == [
        "      nature-01 video_1: DELETE after the cancellation: HTTP 200",
        "      nature-02 video_2: DELETE after the cancellation: HTTP 405",
    ]
    assert call("history", "nature", "--json").stdout == ""


def test_resume_goes_on_with_what_was_started(call: Call, server: Simulator) -> None:
    with BatchService() as service:
        for batch_id in ("one", "two"):
            service.create_batch({"id": batch_id, "videos": [{"prompt": "Sea"}]})
    assert call("resume", "one").exit_code == 0
    assert call("resume", "two", "--json").exit_code == 0
    result = call("resume", "--json")
    assert (result.exit_code, json.loads(result.stdout)) == (0, [])
    assert "nothing to resume" in result.stderr
    assert server.creates == 2


def test_of_several_batches_each_is_told_and_the_worst_is_the_code(
    call: Call, monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    with BatchService() as service:
        for batch_id, prompts in {"one": ["Sea"], "two": ["Sky", "blood"], "lost": ["Fog"]}.items():
            service.create_batch({"id": batch_id, "videos": [{"prompt": prompt} for prompt in prompts]})
    real = BatchService.resume_batches

    def resume(service: BatchService, batch_ids: Any = None) -> list[RunningBatch]:
        lost = RunningBatch("lost")
        lost.set_exception(BatchReleased("lost"))
        return [lost, *real(service, ["one", "two"])]

    monkeypatch.setattr(BatchService, "resume_batches", resume)
    result = call("resume", "--output", "films")
    assert result.exit_code == 1
    assert "batch lost: batch lost was released before it ended" in result.stderr
    assert "batch one completed: 1 of 1 video" in result.stdout
    assert "batch two partial: 1 of 2 videos" in result.stdout
    assert sorted(path.name for path in (home / "films").iterdir()) == ["01-sea.mp4", "01-sky.mp4"]
    documents = json.loads(call("resume", "--json").stdout)
    assert [document["id"] for document in documents] == ["one", "two", "lost"]
    assert documents[2]["error"]["code"] == "unavailable"
    monkeypatch.setattr(BatchService, "resume_batches", lambda service, _=None: real(service, ["one", "two"]))
    assert call("resume", "-q").exit_code == 3


def test_ended_batches_are_deleted_with_their_files_and_nothing_is_asked(call: Call, home: Path) -> None:
    for batch_id in ("one", "two", "three"):
        assert call("run", "-p", "A sunset", "--id", batch_id, "--quiet").exit_code == 0
    assert call("create", "-p", "Sea", "--id", "new").exit_code == 0
    folders = home / "videos"
    result = call("delete", "one")
    assert (result.exit_code, result.stdout) == (0, "deleted batch one\n")
    assert not (folders / "one").exists()
    result = call("delete", "two", "nope", "new", "two", "--keep-files", "--json")
    assert result.exit_code == 2
    two, nope, new = json.loads(result.stdout)
    assert two == {"batch_id": "two", "deleted": True}
    assert [each["error"]["code"] for each in (nope, new)] == ["not_found", "conflict"]
    assert "cancel it first" in result.stderr
    assert list((folders / "two").iterdir())
    assert json.loads(call("delete", "three", "--json").stdout) == {"batch_id": "three", "deleted": True}
    assert [batch["id"] for batch in json.loads(call("list", "--json").stdout)] == ["new"]


def test_several_batches_are_cancelled_and_retried_at_once(call: Call) -> None:
    with BatchService() as service:
        for batch_id in ("one", "two"):
            service.create_batch({"id": batch_id, "videos": [{"prompt": "Sea"}]})
    result = call("cancel", "one", "nope", "two", "--json")
    assert result.exit_code == 2
    assert [each.get("cancelled") for each in json.loads(result.stdout)] == [1, None, 1]
    assert json.loads(result.stdout)[1]["error"]["code"] == "not_found"
    assert "batch nope: there is no batch 'nope'" in result.stderr
    assert call("cancel", "one", "two").stdout.count("cancelled: 1 of 1 video cancelled") == 2
    assert "with a single batch" in call("retry", "one", "two", "--job", "1").stderr
    result = call("retry", "one", "nope", "two", "--json")
    assert result.exit_code == 2
    assert [each.get("status") for each in json.loads(result.stdout)] == ["completed", "completed", None]
    assert "batch nope: there is no batch 'nope'" in result.stderr


def test_resume_says_what_is_unfinished_elsewhere(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    with BatchService() as service, service._database.connection(), service._database.begin():
        put(service._storage, a_batch("sim", status=BatchStatus.PROCESSING, provider=SIMULATOR))
    result = call("resume")
    assert (result.exit_code, result.stderr) == (
        0,
        "sora-batch: 1 simulated batch is unfinished; resume with: sora-batch resume --simulate\n",
    )
    with BatchService() as service, service._database.connection(), service._database.begin():
        service._storage.batches.update("sim", provider="http://127.0.0.1:1/v1#0", server=None)
    assert "1 batch of another server is unfinished, none of http" in call("resume").stderr
    assert (
        call("resume", "--simulate").stderr
        == "sora-batch: 1 batch of a server is unfinished; resume with: sora-batch resume\n"
    )


def test_prune_removes_history_and_batches(call: Call) -> None:
    call("run", "-p", "Sea", "--id", "nature")
    assert "removed 0 events from" in call("prune").stdout
    report = json.loads(call("prune", "--older-than", "0s", "--batches", "--json").stdout)
    assert report["batches"] == 1
    assert call("status", "nature").exit_code == 2


def test_history_says_what_was_pruned(call: Call) -> None:
    call("run", "-p", "Sea", "--id", "nature")
    assert "pruned" not in call("history", "nature").stderr
    with BatchService() as service:
        last = int(service.history("nature")[-1].sequence)
        service.prune(timedelta(0))
        assert (service.pruned("nature"), service.history("nature")) == (last, [])
    for options in ([], ["--json"], ["--from", str(last)]):
        result = call("history", "nature", *options)
        assert (result.exit_code, result.stdout) == (0, "")
        assert result.stderr == f"sora-batch: events 1 to {last} were pruned\n"
    assert call("history", "nature", "--from", str(last + 1)).stderr == ""


def test_prune_counts_on_a_terminal_only(call: Call, tmp_path: Path) -> None:
    call("run", "-p", "Sea", "--id", "nature")
    words, here = [sys.executable, "-m", "actors.cli", "prune", "--older-than", "0s"], str(Path(__file__).parents[3])
    for options, shown in (["--json"], False), (["--quiet"], False), ([], True):
        terminal, other_end = os.openpty()
        done = subprocess.run(
            [*words, *options], stderr=other_end, stdout=subprocess.PIPE, check=False, timeout=60, cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": here, "TERM": "xterm"},
        )  # fmt: skip
        os.close(other_end)
        try:
            told = os.read(terminal, 1 << 16)
        except OSError:  # nothing, and nobody at the other end
            told = b""
        os.close(terminal)
        assert (done.returncode, b"remov" in told) == (0, shown), told


def test_an_interrupted_prune_says_what_is_gone_and_that_the_next_one_goes_on(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    call("run", "-p", "Sea", "--id", "nature")
    prune = BatchService.prune

    def interrupted(service: BatchService, older_than: timedelta, **options: Any) -> None:
        prune(service, older_than, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(BatchService, "prune", interrupted)
    result = call("prune", "--older-than", "0s", "--batches")
    assert result.exit_code == 130
    assert "and 1 batch; run it again to continue" in result.stderr


def test_simulated_videos_are_said_to_be(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL")
    result = call("demo", "--output", "films")
    assert result.exit_code == 0, result.stderr
    assert "These videos are simulated" in result.stdout
    assert "OPENAI_BASE_URL" in result.stdout
    assert "films/02-a-mountain-landscape.mp4" in result.stdout
    assert "simulated (no server is used)" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("run",), "give a batch file"),
        (("run", "nothere.txt"), "'nothere.txt' does not exist"),
        (("run", "-p", ""), "videos[0].prompt: must not be empty"),
        (("run", "-p", "x" * 32_001), "videos[0].prompt"),
        (("run", "-p", "Sea", "--concurrency", "0"), "--concurrency 0"),
        (("run", "-p", "Sea", "--duration", "0"), "--duration: must be 1 or more (got 0)"),
        (("run", "-p", "Sea", "--duration", "ten"), "--duration"),
        (("run", "-p", "Sea", "--id", "a/b"), "id: "),
        (("run", "-p", "Sea", "--metadata", "x"), "KEY=VALUE"),
        (("run", "-p", "Sea", "--output", "/dev/null/x"), "--output"),
        (("run", *["-p", "Sea"] * 11), "BATCH_MAX_SIZE"),
        (("status", "nope"), "there is no batch 'nope' in the database /"),
        (("history", "nope"), "nope"),
        (("cancel", "nope"), "nope"),
        (("retry", "nope"), "nope"),
        (("resume", "nope"), "nope"),
        (("list", "--status", "lost"), "status: must be one of"),
        (("retry", "x", "--set", "2.speed=1"), "'speed' can't be changed"),
        (("retry", "x", "--set", "2"), "JOB.FIELD=VALUE"),
        (("retry", "x", "--prompt", "Sea"), "exactly one --job"),
        (("prune", "--older-than", "soon"), "not a duration"),
        (("simulator", "--latency", "slow"), "--latency"),
        (("simulator", "--latency", "5-2"), "latency"),
        (("simulator", "--rate-limit", "0"), "--rate-limit"),
        (("simulator", "--profile", "mine"), "profile"),
        (("simulator", "--profile", "sglang", "--strict"), "strict"),
        (("simulator", "--replicas", "0"), "--replicas"),
        (("frobnicate",), "No such command"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(call: Call, arguments: tuple[str, ...], complaint: str) -> None:
    result = call(*arguments)
    assert result.exit_code == 2
    assert complaint in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
    assert json.loads(call("list", "--json").stdout) == []


def test_the_file_is_named_that_holds_a_wrong_request(call: Call, home: Path) -> None:
    (home / "ten.csv").write_text("prompt,duration\nSea,ten\n")
    assert "sora-batch: ten.csv: videos[0].duration" in call("run", "ten.csv").stderr


def test_no_server_named_is_noticed_before_a_batch_is_made(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL")
    result = call("run", "-p", "Sea", "--json")
    assert result.exit_code == 2
    assert json.loads(result.stdout)["error"]["code"] == "invalid_request"
    assert json.loads(call("list", "--json").stdout) == []


def test_a_database_that_can_not_be_used_is_named(call: Call, home: Path) -> None:
    (home / "sora-batch.db").write_bytes(b"not a database, by far" * 100)
    result = call("list")
    assert result.exit_code == 2
    assert str(home / "sora-batch.db") in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("command", ["run", "create", "quote", "submit"])
def test_a_time_limit_is_an_option_of_every_request(call: Call, command: str) -> None:
    assert "--timeout 'soon': must be a duration" in call(command, "-p", "Sea", "--timeout", "soon").stderr


def test_a_batch_is_watched_in_the_database_where_there_is_no_rabbitmq(call: Call, home: Path) -> None:
    assert "the database does not exist yet" in call("watch", "nature").stderr
    assert not list(home.glob("*.db"))
    with BatchService() as service:
        service.create_batch({"id": "nature", "videos": [{"prompt": "Sea"}, {"prompt": "blood"}]})
        with Journal(service).events("nature", None) as stream:
            assert (stream.next(0), stream.ended) == (None, False)
            service.process_batch("nature").result(30)
            events = []
            while not stream.ended:
                events.append(stream.next(0))
        recorded = service.history("nature")
        assert [event for event in events if event] == recorded[1:]
        service.create_batch({"id": "other", "videos": [{"prompt": "Sea"}]})
        running = service.process_batch("other")
        lines = [json.loads(line) for line in call("watch", "other", "--json").stdout.splitlines()]
        running.result(30)
        assert lines[0]["type"] == "sora-batch.batch.reported.v1"
        numbers = [int(line["sequence"]) for line in lines[1:]]
        last = int(service.history("other")[-1].sequence)
        assert numbers == list(range(lines[0]["data"]["as_of_sequence"] + 1, last + 1))
    watched = call("watch", "nature")
    assert (watched.exit_code, "1 of 2 videos" in watched.stdout) == (3, True)
    assert call("watch", "nature", "--quiet").stdout.count(".mp4") == 1
    unknown = call("watch", "nope")
    assert (unknown.exit_code, "there is no batch 'nope' in the database" in unknown.stderr) == (2, True)
    call("delete", "nature")
    assert call("watch", "nature").exit_code == 2


@pytest.mark.parametrize("command", ["status", "fetch", "delete", "cancel", "retry"])
def test_an_unknown_batch_may_be_a_services(call: Call, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    with BatchService():
        monkeypatch.setenv("AMQP_URL", "amqp://guest:guest@127.0.0.1:1/")
    result = call(command, "nope")
    assert result.exit_code == 2
    assert result.stderr.count("there is no batch") == 1
    assert f"to ask a service through RabbitMQ: sora-batch {command} nope --remote" in result.stderr


def test_a_taken_port_is_named(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    port = os.environ["OPENAI_BASE_URL"].split(":")[2].removesuffix("/v1")
    result = call("simulator", "--port", port, "--content-bytes", "10")
    assert result.exit_code == 1
    assert f"127.0.0.1:{port}" in result.stderr
