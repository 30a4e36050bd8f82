"""Input from outside can't hurt, and what is secret stays so: the promises of docs/SECURITY.md, from outside."""

import http.server
import json
import os
import re
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import psycopg
import pytest

from actors.batch import references
from actors.batch.references import load_reference
from actors.cli.checks import server as server_check
from actors.errors import InvalidRequest
from actors.service import BatchService
from storage.videos import MARKER
from tests.integration.support import PATIENCE, ROOT, settings_from, until, videos
from tests.provider.client import Provider
from tests.servers.port import Port
from tests.servers.postgresql import PostgreSQL
from tests.servers.rabbitmq import RabbitMQ

pytestmark = pytest.mark.integration

Start = Callable[..., BatchService]
Options = Callable[..., dict[str, Any]]

KEY, WORD, MAIL = "kestrel-key-5170", "puffin-word-8231", "heron-word-9342"
"""The key, and the passwords of a database and of RabbitMQ: shaped like nothing that a pattern knows."""
EVIL = "\x1b]0;owned\x07\x1b[31mred\x9b2J\x08\x7f\u202egpj.\u2066\u200f\u2028"
_CONTROL = re.compile("[\\x00-\\x09\\x0b-\\x1f\\x7f-\\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


@pytest.fixture(autouse=True)
def _no_long_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.video.setbacks._LONGEST_BACKOFF", 0.05)


@pytest.fixture
def nobody() -> Iterator[str]:
    """An address where nobody answers."""
    port = Port()
    yield f"127.0.0.1:{port.number}"
    port.release()


class Shell:
    """Calls the command line as somebody who wants to know everything: at DEBUG and with -v."""

    def __init__(self, folder: Path, options: dict[str, Any]) -> None:
        self.folder, self.said, self.started = folder, list[str](), list[subprocess.Popen[str]]()
        self.options = options
        kept = {name: value for name, value in os.environ.items() if name == "PATH"}
        settings = {name.upper(): str(value) for name, value in options.items()}
        self._environment = kept | {"PYTHONPATH": str(ROOT), "LOG_LEVEL": "debug", **settings}

    def start(self, *words: str, **settings: str) -> subprocess.Popen[str]:
        self.started.append(
            subprocess.Popen(
                [sys.executable, "-m", "actors.cli", *words],
                env=self._environment | settings,
                cwd=self.folder,
                text=True,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        )
        return self.started[-1]

    def end(self, process: subprocess.Popen[str]) -> int:
        self.said += process.communicate(timeout=PATIENCE)
        return process.returncode

    def __call__(self, *words: str, **settings: str) -> int:
        return self.end(self.start(*words, **settings))

    def everything(self) -> str:
        return "\n".join(self.said)


@pytest.fixture
def shell(options: Options, tmp_path: Path) -> Iterator[Callable[..., Shell]]:
    shells: list[Shell] = []

    def make(**changes: Any) -> Shell:
        shells.append(Shell(tmp_path, options(**changes)))
        return shells[-1]

    yield make
    for process in (process for each in shells for process in each.started):
        process.kill()
        process.communicate()


def kept_in(folder: Path) -> bytes:
    """All that is on the disk: the database, its log, the videos, and what else there may be."""
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def lines_of_processes(pid: int) -> str:
    """The command lines of a process and its threads' children, as every user of the machine can read them."""
    children = [
        child for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()
    ]
    return "\n".join(Path(f"/proc/{each}/cmdline").read_text() for each in (pid, *children))


# --- no secret anywhere


def quoted(key: str) -> dict[str, Any]:
    return {"error": {"code": f"bad_{key}", "message": f"Incorrect API key provided: {key}", "param": [key]}}


def test_a_key_that_the_server_quotes_is_shown_and_kept_nowhere(
    provider: Provider, shell: Callable[..., Shell], tmp_path: Path
) -> None:
    ask = shell(openai_api_key=KEY)
    provider.fault(on="create", do="answer", status=401, body=quoted(KEY), match="refused")
    provider.fault(on="retrieve", do="answer", set={"status": "failed", **quoted(KEY)}, match="fails")
    provider.fault(on="content", do="answer", status=403, body=f"no, {KEY}", match="no file")
    assert ask("run", "-v", "-p", "fails", "-p", "no file", "--id", "made") == 1
    assert ask("run", "-v", "--json", "-p", "refused", "--id", "refused", LOG_FORMAT="json") == 1
    for batch_id in ("made", "refused"):
        for words in (("status", batch_id), ("history", batch_id, "--json")):
            assert ask(*words, "-v") == 0
    provider.fault(on="create", do="answer", status=500, body=quoted(KEY), match="nobody knows")
    assert ask("run", "-v", "-p", "nobody knows", "--id", "unknown") == 0  # it was not made, and is sent again
    provider.fault(on="list", do="answer", status=500, body=quoted(KEY), times=-1)
    for words in (("doctor",), ("audit",)):
        ask(*words, "-v")
    assert "Incorrect API key provided: ***" in ask.everything()  # it was said, and this much of it is told
    assert KEY not in ask.everything()
    assert KEY.encode() not in kept_in(tmp_path)
    assert b"Incorrect API key provided: ***" in kept_in(tmp_path)


def test_no_secret_is_in_a_command_line(provider: Provider, shell: Callable[..., Shell], nobody: str) -> None:
    if not Path("/proc/self/cmdline").exists():
        pytest.skip("only Linux tells of processes in /proc")
    provider.hold()
    ask = shell(openai_api_key=KEY, amqp_url=f"amqp://guest:{MAIL}@{nobody}")
    running = ask.start("run", "-p", "a cat")
    provider.wait(accepted=1)
    listing = lines_of_processes(running.pid)
    assert "actors.cli" in listing
    assert not [secret for secret in (KEY, MAIL) if secret in listing]
    provider.release("videos")
    assert ask.end(running) == 0


def test_the_password_of_a_server_of_videos_is_shown_and_kept_nowhere(
    provider: Provider, shell: Callable[..., Shell], tmp_path: Path, nobody: str
) -> None:
    host = urlsplit(provider.base_url).netloc
    ask = shell(openai_base_url=f"http://me:{WORD}@{host}/v1")
    assert ask("run", "-v", "-p", "a cat", "--id", "made") == 0
    assert ask("doctor", "-v") == 0
    provider.fault(on="create", do="answer", status=404, body=quoted(WORD))
    assert ask("run", "-v", "-p", "a dog", "--id", "refused") == 1
    away = f"http://me:{WORD}@{nobody}/v1"
    ask("doctor", "-v", "--json", OPENAI_BASE_URL=away)
    assert ask("resume", "-v", "made", OPENAI_BASE_URL=away) == 0  # it has ended, wherever
    assert ask("retry", "-v", "made", OPENAI_BASE_URL=away) == 2
    for wrong in (f"me:{WORD}@{host}", f"ftp://me:{WORD}@{host}"):
        assert ask("list", "-v", OPENAI_BASE_URL=wrong) == 2
        ask("doctor", "-v", OPENAI_BASE_URL=wrong)
    assert "has no Videos API" in ask.everything()
    assert WORD not in ask.everything()
    assert WORD.encode() not in kept_in(tmp_path)


def test_the_password_of_rabbitmq_is_shown_and_kept_nowhere(
    provider: Provider, rabbitmq: RabbitMQ, shell: Callable[..., Shell], tmp_path: Path, nobody: str
) -> None:
    at = urlsplit(rabbitmq.url).netloc.rpartition("@")[2]
    ask = shell(amqp_url=f"amqp://guest:{MAIL}@{at}/", openai_api_key=KEY)
    assert ask("run", "-v", "-p", "a cat", "--id", "made") == 0
    assert provider.summary()["posts"] == 1
    for words in (("doctor",), ("doctor", "--declare", "--json"), ("watch", "made"), ("submit", "-p", "a dog")):
        assert ask(*words, "-v") != 0
    ask("doctor", "-v", AMQP_URL=f"amqp://guest:{MAIL}@{nobody}/")
    ask("doctor", "-v", AMQP_URL=f"amqp://guest:{MAIL}@127.0.0.1:none/")
    assert "amqp://guest:***@" in ask.everything()
    assert MAIL not in ask.everything()
    assert MAIL.encode() not in kept_in(tmp_path)


def test_the_password_of_the_database_is_shown_nowhere(
    shell: Callable[..., Shell], postgresql: PostgreSQL, nobody: str
) -> None:
    ask, host = shell(), f"127.0.0.1:{postgresql.port}"
    for url in (
        f"postgresql://postgres:{WORD}@{host}/postgres",  # it is wrong
        f"postgresql://postgres:{WORD}@{nobody}/postgres",  # nobody is there
        f"postgresql://postgres:{WORD}@{host}:none/postgres",
        f"postgresql://postgres:{WORD}@{WORD}@{host}/postgres",
        f"postgres//postgres:{WORD}@{host}/postgres",
        f"mysql://postgres:{WORD}@{host}/postgres",
    ):
        for words in (("status", "b"), ("doctor", "--json")):
            assert ask(*words, "-v", DATABASE_URL=url) != 0
    assert "password authentication failed" in ask.everything()
    assert WORD not in ask.everything()


HOSTILE_WORD = "Puffin8231#'?\"/\\\u540d %Heron9342"


def test_a_database_whose_password_only_libpq_can_read_is_used_and_not_shown(
    shell: Callable[..., Shell], postgresql: PostgreSQL
) -> None:
    ask, name = shell(), postgresql.create_database()
    with psycopg.connect(postgresql.url("postgres"), autocommit=True) as connection:
        connection.execute("CREATE ROLE hostile SUPERUSER LOGIN PASSWORD 'Puffin8231#Heron9342'")
    url = f"postgresql://hostile:Puffin8231#Heron9342@127.0.0.1:{postgresql.port}/{name}"
    assert ask("list", "-v", DATABASE_URL=url) == 0
    assert ask("status", "nope", "-v", DATABASE_URL=url) == 2
    ask("doctor", "-v", DATABASE_URL=url)
    assert f"postgresql://hostile:***@127.0.0.1:{postgresql.port}/{name}" in ask.everything()
    assert "no batch 'nope' in the database postgresql://127.0.0.1" in ask.everything()
    assert not [word for word in ("Puffin8231", "Heron9342") if word in ask.everything()]


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_service_shows_no_secret_however_it_is_spelled(
    provider: Provider, shell: Callable[..., Shell], tmp_path: Path, nobody: str, log_format: str
) -> None:
    """At DEBUG, with a server that refuses the key and quotes it."""
    said = [HOSTILE_WORD, repr(HOSTILE_WORD), json.dumps(HOSTILE_WORD), quote(HOSTILE_WORD)]
    provider.fault(on="create", do="answer", status=401, body={"error": {"message": " ".join(said)}}, times=-1)
    ask = shell(openai_api_key=HOSTILE_WORD, amqp_url=f"amqp://me:{quote(HOSTILE_WORD, safe='')}@{nobody}/")
    serving = ask.start("serve", "-v", LOG_FORMAT=log_format)
    assert serving.stderr is not None
    while "serving:" not in (line := serving.stderr.readline()):
        ask.said.append(line)
    with BatchService(settings_from(ask.options)) as service:
        service.create_batch(videos("a cat", id="b"))
        assert service.process_batch("b").result(PATIENCE).status == "failed"  # whoever made it
    serving.terminate()
    assert ask.end(serving) == 0
    ask.said.append(line)
    assert "amqp://me:***@" in ask.everything()
    assert ask("status", "b") == 0
    assert not [word for word in ("Puffin8231", "Heron9342") if word in ask.everything()]
    assert not [word for word in (b"Puffin8231", b"Heron9342") if word in kept_in(tmp_path)]


# --- where the key goes


@pytest.mark.parametrize("route", ["retrieve", "content", "delete"])
def test_no_redirect_carries_the_key(route: str, provider: Provider, start_service: Start) -> None:
    provider.options(api_key=KEY)
    provider.fault(on=route, do="redirect", times=1)
    service = start_service(openai_api_key=KEY, sora_video_timeout=5000)
    if route == "delete":
        provider.hold()
    service.create_batch(videos("a cat", id="b"))
    running = service.process_batch("b")
    if route == "delete":
        until(lambda: service.get_batch_status("b").jobs[0].remote_id)
        service.cancel_batch("b")
    running.result(PATIENCE)
    if route == "delete":  # it would delete something else
        provider.wait_until(lambda ledger: ledger["requests"].get("delete"))
        service.close()
        assert provider.ledger()["elsewhere"] == []
    else:
        provider.wait_until(lambda ledger: ledger["elsewhere"])
    assert provider.summary()["leaked_authorizations"] == 0


def test_doctor_follows_no_redirect_with_the_key(provider: Provider, options: Options) -> None:
    provider.options(api_key=KEY)
    provider.fault(on="list", do="redirect")
    check = server_check(settings_from(options(openai_api_key=KEY)))
    assert not check.ok
    assert "redirects to" in check.message
    assert provider.ledger()["elsewhere"] == []


# --- what a command may make the service read


class Inside(http.server.BaseHTTPRequestHandler):
    """An allowed host that redirects to an address inside, which notes who comes."""

    visits: list[str]

    def do_GET(self) -> None:
        self.visits.append(self.path)
        self.send_response(200 if self.path == "/inside" else 302)
        self.send_header("Location", f"http://127.0.0.1:{self.server.server_address[1]}/inside")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """It would go to standard error."""


def test_a_redirect_of_an_allowed_host_leads_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    Inside.visits = []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Inside) as host:
        threading.Thread(target=host.serve_forever, daemon=True).start()
        original = urllib.request.OpenerDirector.open

        def without_tls(self: Any, url: str, *arguments: Any, **named: Any) -> Any:
            plain = url.replace("https://images.example", f"http://127.0.0.1:{host.server_address[1]}")
            return original(self, plain, *arguments, **named)

        monkeypatch.setattr(references.urllib.request.OpenerDirector, "open", without_tls)
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        allowed = settings_from({"sora_reference_hosts": "images.example"})
        with pytest.raises(InvalidRequest, match="HTTP Error 302"):
            load_reference("https://images.example/a.png", allowed, ("input_reference",), paths=False)
        host.shutdown()
    assert Inside.visits == ["/a.png"]


# --- what a server may make of us


def test_a_hostile_server_writes_nothing_outside_its_batchs_folder(
    provider: Provider, service: BatchService, tmp_path: Path
) -> None:
    kind = {"Content-Type": "video/../../../evil.sh", "Content-Disposition": 'attachment; filename="../../evil.sh"'}
    provider.fault(on="content", do="answer", status=200, headers=kind, body="#!/bin/sh", times=-1)
    service.create_batch(videos("a cat", id="b"))
    (job,) = service.process_batch("b").result(PATIENCE).jobs
    assert job.video is not None
    kept = tmp_path / "videos" / "b" / f"b-01-{job.video.sha256[:8]}.bin"
    assert Path(job.video.path) == kept
    files = {path for path in tmp_path.rglob("*") if path.is_file() and not path.name.startswith("batches.db")}
    assert files == {kept, tmp_path / "videos" / MARKER}


@pytest.mark.parametrize("remote_id", ["../../../etc/passwd", "/etc/passwd", "a/../../b", "..%2f..%2fx", "a\\..\\b"])
def test_an_id_of_a_hostile_server_names_no_file_of_ours(
    remote_id: str, provider: Provider, start_service: Start, tmp_path: Path
) -> None:
    service = start_service(sora_video_timeout=2000)
    provider.fault(on="create", do="answer", set={"id": remote_id})
    service.create_batch(videos("a cat", id="b"))
    (job,) = service.process_batch("b").result(PATIENCE).jobs
    assert (job.status, job.remote_id) == ("failed", remote_id)
    assert [path for path in (tmp_path / "videos").rglob("*") if path.is_file()] == [tmp_path / "videos" / MARKER]


@pytest.mark.parametrize("batch_id", ["..", "../b", "/etc", ".", "b/../.."])
def test_no_id_deletes_a_file_that_is_not_ours(batch_id: str, service: BatchService, tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "mine.txt").write_text("mine")
    with pytest.raises(InvalidRequest):
        service.create_batch(videos("a cat", id=batch_id))
    with pytest.raises(Exception, match="no batch"):
        service.delete_batch(batch_id)
    assert (tmp_path / "b" / "mine.txt").read_text() == "mine"


def test_what_a_server_says_is_limited_wherever_it_goes(provider: Provider, service: BatchService) -> None:
    endless = {"error": {"code": "x" * 1_000_000, "message": "y" * 1_000_000, "param": "z" * 1_000_000}}
    provider.fault(on="create", do="answer", status=400, body=endless, match="refused")
    provider.fault(on="retrieve", do="answer", set={"status": "failed", **endless}, match="fails")
    service.create_batch(videos("refused", "fails", id="b"))
    batch = service.process_batch("b").result(PATIENCE)
    assert [job.status for job in batch.jobs] == ["failed", "failed"]
    for job in batch.jobs:
        assert job.error is not None
        assert len(job.error.message) < 1000
        assert len(json.dumps(job.error.detail)) < 2000
    assert max(len(record.body) for record in service.recorded("b")) < 20_000


# --- what is shown on a terminal


def test_nothing_from_outside_steers_a_terminal(
    provider: Provider, shell: Callable[..., Shell], service: BatchService
) -> None:
    error = {"error": {"code": f"c{EVIL}", "message": f"m{EVIL}"}}
    provider.fault(on="create", do="answer", status=400, body=error, match="refused")
    provider.fault(on="retrieve", do="answer", set={"status": "failed", **error}, match="fails")
    service.create_batch(
        videos(f"refused{EVIL}", f"fails{EVIL}", f"made{EVIL}", id="b", batch_name=EVIL, metadata={EVIL: EVIL})
    )
    ask = shell()
    assert ask("run", "-v", "-p", f"refused{EVIL}", "--name", EVIL) == 1
    assert ask("resume", "-v", "b") == 3
    for words in (("status", "b"), ("status", "b", "--json"), ("history", "b"), ("list",)):
        assert ask(*words, "-v") == 0
    for words in (("status", f"x{EVIL}"), ("retry", "b", "--job", f"x{EVIL}"), ("list", "--status", EVIL)):
        assert ask(*words, "-v", LOG_FORMAT="json") == 2
    provider.fault(on="list", do="redirect", to=f"http://127.0.0.1/{'%1b%9b'}", times=-1)
    ask("doctor", "-v")
    ask("audit", "-v")
    text = ask.everything()
    assert "owned" in text
    assert not [line for line in text.split("\n") if _CONTROL.search(line)]
