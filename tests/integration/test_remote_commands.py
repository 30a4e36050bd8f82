"""`submit`, `watch` and `cancel` as a person has them who has RabbitMQ alone: no database, no server of videos."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from actors.cli.submit import QUEUED
from actors.rabbitmq import topology
from actors.service import BatchService
from tests.integration.application import Application
from tests.integration.support import PATIENCE, ROOT, check_paid_once, numbered, until, videos
from tests.provider.client import Provider
from tests.servers.rabbitmq import RabbitMQ

pytestmark = pytest.mark.integration

PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c49444154"
    "78da63f8cfc0000003010100c9fe92ef0000000049454e44ae426082"
)


class Person:
    """Somebody at a shell in an empty folder."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder, self.running = folder, list[subprocess.Popen[str]]()
        kept = {name: value for name, value in os.environ.items() if name == "PATH"}
        self._environment = kept | {"AMQP_URL": url, "PYTHONPATH": str(ROOT), "COLUMNS": "100"}

    def start(self, *words: str) -> subprocess.Popen[str]:
        self.running.append(
            subprocess.Popen(
                [sys.executable, "-m", "actors.cli", *words],
                env=self._environment,
                cwd=self.folder,
                text=True,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        )
        return self.running[-1]

    def run(self, *words: str) -> tuple[int, str, str]:
        process = self.start(*words)
        said, complained = process.communicate(timeout=PATIENCE)
        return process.returncode, said, complained


@pytest.fixture
def person(rabbitmq: RabbitMQ, tmp_path: Path) -> Iterator[Person]:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    person = Person(folder, rabbitmq.url)
    yield person
    for process in person.running:
        process.kill()
        process.communicate()
    assert not list(folder.glob("*.db"))


def test_a_file_is_submitted_and_watched_to_its_end(person: Person, serving: BatchService, provider: Provider) -> None:
    provider.options(latency=2.0)  # what had ended before the watching began would have no line of its own
    (person.folder / "prompts.txt").write_text("A lake\nA sea\n")
    code, said, told = person.run("submit", "prompts.txt", "--watch", "--name", "Water")
    assert code == 0, told
    (batch,) = serving.list_batches()
    assert f"batch {batch.id} (Water) completed: 2 of 2 videos" in said
    assert told.count(" completed ") == 3
    code, said, _ = person.run("watch", batch.id, "--json")
    assert code == 0
    (reported,) = map(json.loads, said.splitlines())
    assert (reported["type"], reported["data"]["status"]) == ("sora-batch.batch.reported.v1", "completed")


def test_the_id_is_all_that_is_printed(person: Person, serving: BatchService, provider: Provider) -> None:
    provider.options(latency=60.0)
    code, said, told = person.run("submit", "-p", "A lake", "--duration", "8")
    assert (code, told) == (0, "")
    batch = serving.get_batch_status(said.strip())
    assert [(job.prompt, job.duration) for job in batch.jobs] == [("A lake", 8)]
    until(lambda: serving.get_batch_status(batch.id).progress.processing)
    watching = person.start("watch", batch.id)
    assert watching.stderr is not None
    code, said, _ = person.run("cancel", batch.id, "--reason", "enough", "--remote")
    assert code == 0
    assert f"batch {batch.id} cancelled: 1 of 1 video cancelled" in said
    said, _ = watching.communicate(timeout=PATIENCE)
    assert watching.returncode == 4
    assert f"batch {batch.id} cancelled" in said


def test_ended_batches_are_deleted_there(person: Person, serving: BatchService) -> None:
    for batch_id in ("one", "two"):
        serving.create_batch({"id": batch_id, "videos": [{"prompt": "A lake"}]})
    serving.cancel_batch("one")
    code, said, told = person.run("delete", "one", "two", "--remote", "--json")
    assert code == 2
    assert "cancel it first" in told
    one, two = json.loads(said)
    assert one == {"batch_id": "one", "deleted": True}
    assert (two["batch_id"], two["error"]["code"]) == ("two", "conflict")
    assert [batch.id for batch in serving.list_batches()] == ["two"]


def test_missing_files_are_downloaded_again_there(person: Person, serving: BatchService, provider: Provider) -> None:
    serving.create_batch(videos("A lake", id="nature"))
    batch = serving.process_batch("nature").result(PATIENCE)
    code, _, told = person.run("retry", "nature", "--missing", "--remote")
    assert (code, "no file of a completed video is missing" in told) == (2, True)
    assert batch.jobs[0].video is not None
    Path(batch.jobs[0].video.path or "").unlink()
    assert person.run("retry", "nature", "--missing", "--remote") == (0, "nature\n", "")
    until(lambda: serving.jobs_without_file("nature") == [])
    assert check_paid_once(provider)["posts"] == 1


def test_json_is_the_batch(person: Person, serving: BatchService) -> None:
    code, said, _ = person.run("submit", "-p", "A lake", "--id", "nature", "--watch", "--json")
    assert code == 0
    assert json.loads(said) == serving.get_batch_status("nature").model_dump(mode="json")
    code, said, _ = person.run("submit", "-p", "A lake", "--id", "again", "--json")
    document = json.loads(said)
    assert (code, document["id"], document["progress"]["total"]) == (0, "again", 1)


def test_a_batch_is_queued_where_no_service_is_listening(
    person: Person, application: Application, start_service: Callable[..., BatchService],
    consume: Callable[..., None], provider: Provider,
) -> None:  # fmt: skip
    code, said, told = person.run("submit", "-p", "A lake", "--id", "nature")
    assert (code, said, told) == (0, "nature\n", f"sora-batch: {QUEUED}\n")
    code, said, told = person.run("submit", "-p", "A lake", "--id", "nature", "--json")  # a script that tries again
    assert (code, json.loads(said), told) == (0, {"id": "nature", "queued": True}, "")
    assert application.count(topology.COMMANDS) == 2
    service = start_service(amqp_url=application.url)
    consume(service)
    service.serve()
    until(lambda: [batch.status for batch in service.list_batches()] == ["completed"])
    until(lambda: not application.count(topology.COMMANDS))
    code, said, _ = person.run("submit", "-p", "A lake", "--id", "nature", "--json", "--require-service")
    assert (code, json.loads(said)["status"]) == (0, "completed")
    assert check_paid_once(provider)["paid_per_prompt"] == {"A lake": 1}


def test_nothing_is_sent_where_a_service_is_required(person: Person, application: Application) -> None:
    code, said, told = person.run("submit", "-p", "A lake", "--require-service")
    assert (code, said) == (1, "")
    assert "nothing was sent: no service is listening" in told
    code, said, _ = person.run("submit", "-p", "A lake", "--require-service", "--json")
    assert (code, json.loads(said)["error"]["code"]) == (1, "unavailable")
    assert application.count(topology.COMMANDS) == 0


def test_who_watches_waits_for_the_service(
    person: Person, application: Application, start_service: Callable[..., BatchService],
    consume: Callable[..., None], provider: Provider,
) -> None:  # fmt: skip
    watching = person.start("submit", "-p", "A lake", "--id", "nature", "--watch", "--json")
    assert watching.stderr is not None
    assert watching.stderr.readline() == f"sora-batch: {QUEUED}\n"
    service = start_service(amqp_url=application.url)
    consume(service)
    service.serve()
    said, _ = watching.communicate(timeout=PATIENCE)
    assert (watching.returncode, json.loads(said)["status"]) == (0, "completed")
    check_paid_once(provider)


def test_a_batch_of_a_service_is_reached_with_remote(person: Person, serving: BatchService, provider: Provider) -> None:
    provider.fault(on="create", do="answer", status=400)
    batch_id = person.run("submit", "-p", "A lake")[1].strip()
    until(lambda: serving.get_batch_status(batch_id).status == "failed")
    for words in (["status", batch_id], ["cancel", batch_id], ["retry", batch_id, "--pay-again"]):
        code, said, told = person.run(*words)
        assert (code, said) == (2, ""), told
        assert f"sora-batch {words[0]} {batch_id} --remote" in told
    for database in person.folder.glob("*.db*"):
        database.unlink()  # `cancel` and `retry` use one, and make it
    code, said, _ = person.run("status", batch_id, "--remote", "--json")
    assert (code, json.loads(said)["status"]) == (0, "failed")
    code, said, _ = person.run("retry", batch_id, "--remote", "--move-server", "--set", "1.prompt=A calm lake")
    assert (code, said.strip()) == (0, batch_id)
    until(lambda: serving.get_batch_status(batch_id).status == "completed")
    code, said, _ = person.run("status", batch_id, "--remote")
    assert (code, "A calm lake" in said, "completed" in said) == (0, True, True)
    assert not list(person.folder.glob("*.db"))


def test_ctrl_c_before_the_answer_tells_the_id(person: Person, application: Application) -> None:
    submitting = person.start("submit", "-p", "A lake", "--watch")
    until(lambda: application.count(topology.COMMANDS) == 1)
    submitting.send_signal(signal.SIGINT)
    _, told = submitting.communicate(timeout=PATIENCE)
    assert submitting.returncode == 130
    assert "sora-batch watch batch-" in told


def test_ctrl_c_ends_the_watching_and_not_the_batch(person: Person, serving: BatchService, provider: Provider) -> None:
    provider.options(latency=60.0)
    batch_id = serving.create_batch(videos(*numbered(1))).id
    watching = person.start("watch", batch_id, "--json")
    assert watching.stdout is not None
    assert "batch.reported" in watching.stdout.readline()
    watching.send_signal(signal.SIGINT)
    assert watching.wait(PATIENCE) == 130
    assert serving.get_batch_status(batch_id).status == "pending"


def test_a_picture_travels_with_the_command(person: Person, serving: BatchService, provider: Provider) -> None:
    (person.folder / "sea.png").write_bytes(PIXEL)
    (person.folder / "batch.json").write_text(
        json.dumps({"videos": [{"prompt": "A sea", "input_reference": "sea.png"}]})
    )
    code, _, told = person.run("submit", "batch.json", "--watch", "--quiet")
    assert code == 0, told
    assert serving.list_batches()[0].status == "completed"
    assert len(provider.ledger()["videos"]) == 1


def test_what_a_request_says_travels_with_the_command(
    person: Person, serving: BatchService, provider: Provider
) -> None:
    (person.folder / "shots").mkdir()
    for name in ("a.png", "b.png"):
        (person.folder / "shots" / name).write_bytes(PIXEL + name.encode())
    (person.folder / "house.yaml").write_text("files: {last_frame: shots/b.png}\nparams: {fps: 12}\n")
    (person.folder / "batch.yaml").write_text(
        "videos: ['A {thing}']\nmatrix: {thing: [sea]}\ndefaults: {files: {mask: shots/a.png}}\n"
    )
    options = ("--takes", "2", "--seed", "7", "--param", "fps=24", "--defaults", "house.yaml", "--budget", "9 videos")
    code, said, told = person.run(
        "submit", "batch.yaml", "--input-reference", "shots/*.png", *options, "--id", "sea", "--watch", "--json"
    )
    assert code == 0, told
    jobs = json.loads(said)["jobs"]
    assert [(job["seed"], job["take"], job["metadata"]) for job in jobs] == [
        (7, 1, {"input_reference": "a.png", "thing": "sea"}), (8, 2, {"input_reference": "a.png", "thing": "sea"}),
        (7, 1, {"input_reference": "b.png", "thing": "sea"}), (8, 2, {"input_reference": "b.png", "thing": "sea"}),
    ]  # fmt: skip
    for fields in (post["fields"] for post in provider.ledger()["posts"]):
        assert (fields["prompt"], fields["fps"]) == ("A sea", "24")
        assert fields["mask"]["sha256"] == hashlib.sha256(PIXEL + b"a.png").hexdigest()
        assert "last_frame" not in fields  # the file's own `files` count more
    assert serving.get_batch_status("sea").status == "completed"


@pytest.mark.parametrize("field", ["input_reference: text.png", "files: {mask: text.png}"])
@pytest.mark.parametrize("place", ["defaults", "videos"])
def test_a_file_that_is_no_picture_is_not_sent(
    person: Person, application: Application, place: str, field: str
) -> None:
    (person.folder / "text.png").write_bytes(b"text")
    wrong = f"defaults: {{{field}}}\nvideos: [A sea]\n" if place == "defaults" else f"- {{prompt: A sea, {field}}}\n"
    (person.folder / "batch.yaml").write_text(wrong)
    code, said, told = person.run("submit", "batch.yaml")
    assert (code, said, told.count("\n")) == (2, "", 1)
    named = (
        f"{'defaults' if place == 'defaults' else 'videos[0]'}.{'files.mask' if 'mask' in field else 'input_reference'}"
    )
    assert told.startswith(
        f"sora-batch: batch.yaml: {named}: the input reference 'text.png' can't be used: not an image"
    )
    assert told.endswith(" on line 1\n")
    assert application.count(topology.COMMANDS) == 0


def test_params_and_seeds_are_changed_through_rabbitmq_and_paths_are_not(
    person: Person, serving: BatchService, provider: Provider
) -> None:
    provider.fault(on="create", do="answer", status=400, times=1)
    code, said, _ = person.run("submit", "-p", "A lake", "--param", "fps=12", "--id", "lake", "--watch", "--quiet")
    assert code == 1
    (person.folder / "mask.png").write_bytes(PIXEL)
    code, said, told = person.run("retry", "lake", "--remote", "--set", "1.files.mask=mask.png")
    assert (code, said) == (2, "")
    assert "files.mask: the input reference 'mask.png' can't be used: the path is outside SORA_REFERENCE_DIRS" in told
    code, said, told = person.run("retry", "lake", "--remote", "--set", "1.params.fps=24", "--set", "1.seed=7")
    assert (code, said) == (0, "lake\n"), told
    until(lambda: serving.get_batch_status("lake").status == "completed")
    (job,) = serving.get_batch_status("lake").jobs
    assert (job.params, job.seed) == ({"fps": 24}, 7)


@pytest.mark.usefixtures("serving")
def test_what_is_wrong_is_said_in_a_sentence(person: Person) -> None:
    (person.folder / "batch.json").write_text('{"videos": [{"prompt": "A sea", "duration": 0}]}')
    for words, sentence in (
        (["submit", "batch.json"], "batch.json: videos[0].duration: must be 1 or more (got 0)"),
        (["watch", "nowhere"], "nowhere"),
        (["cancel", "nowhere", "--remote"], "nowhere"),
        (["status", "nowhere", "--remote"], "nowhere"),
        (["retry", "nowhere", "--remote"], "nowhere"),
        (["retry", "nowhere", "--remote", "--simulate"], "omit them with --remote"),
        (["watch", "nature", "--bind", "#"], "--bind works only without an ID"),
    ):
        code, said, told = person.run(*words)
        assert (code, said) == (2, ""), told
        assert sentence in told


@pytest.mark.usefixtures("serving")
def test_everything_is_watched(person: Person) -> None:
    watching = person.start("watch", "--bind", "command.#", "--bind", "batch.completed.#")
    assert watching.stdout is not None
    lines: list[str] = []
    # It says nothing when it is bound, so commands are sent until one is heard.
    heard = _reads(watching.stdout, lines)
    until(
        lambda: person.run("submit", "-p", "A lake")[0] == 0 and any("command.accepted" in line for line in list(lines))
    )
    until(lambda: any("batch.completed" in line for line in list(lines)))
    watching.send_signal(signal.SIGTERM)
    assert watching.wait(PATIENCE) == 143
    heard.join()


def _reads(stream: Any, lines: list[str]) -> threading.Thread:
    thread = threading.Thread(target=lambda: [lines.append(line) for line in iter(stream.readline, "")])
    thread.start()
    return thread


def test_files_are_fetched_with_the_command_and_when_they_are_ready(
    person: Person, serving: BatchService, provider: Provider
) -> None:
    code, said, told = person.run("submit", "-p", "A lake", "-p", "A sea", "--watch", "--output", "films", "--json")
    assert code == 0, told
    batch = json.loads(said)
    films = person.folder / "films"
    assert sorted(film.name for film in films.iterdir()) == ["01-a-lake.mp4", "02-a-sea.mp4"]
    code, said, told = person.run("fetch", batch["id"], "--remote", "--output", "again", "--filename", "{id}", "--json")
    assert code == 0, told
    assert len(json.loads(said)["files"]) == 2
    for job, name in zip(batch["jobs"], ["01-a-lake.mp4", "02-a-sea.mp4"], strict=True):
        for film in (films / name, person.folder / "again" / f"{job['id']}.mp4"):
            assert hashlib.sha256(film.read_bytes()).hexdigest() == job["video"]["sha256"]
    Path(batch["jobs"][0]["video"]["path"]).unlink()
    code, said, told = person.run("fetch", batch["id"], "--remote", "--output", "third")
    assert (code, said) == (1, "third/02-a-sea.mp4\n")
    assert f"{batch['jobs'][0]['id']}: " in told
    code, said, told = person.run("fetch", batch["id"])
    assert (code, f"sora-batch fetch {batch['id']} --remote" in told) == (2, True)
