from __future__ import annotations

import base64
import http.server
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest

from actors.cli import checks, server_checks
from actors.cli.checks import database, rabbitmq, server, services, video_dir
from actors.cli.doctor import settings_table
from actors.cli.server_checks import verdict
from actors.needs import Need, needs
from actors.service import BatchService
from actors.settings import Settings, load_settings
from actors.web import health
from actors.web.health import Health
from storage.database import Database
from storage.owners import this_process
from storage.schema import STEPS
from tests.servers.http_proxy import Proxy, proxying
from tests.servers.http_recorder import Recorder, answer, in_thread, listening
from tests.servers.port import Port

ROOT = Path(__file__).parents[3]


def test_each_setting_says_where_it_came_from(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / ".env").write_text("VIDEO_DIR=films\nsora_seconds=8\nSORA_MODEL=\nBATCH_TIMEOUT=1\n")
    monkeypatch.setenv("BATCH_TIMEOUT", "60000")
    table = {setting.name: (setting.value, setting.source) for setting in settings_table(load_settings())}
    assert table["BATCH_TIMEOUT"] == ("60000", "environment")
    assert table["VIDEO_DIR"] == ("films", ".env")
    assert table["SORA_SECONDS"] == ("8", ".env")
    assert table["SORA_MODEL"] == (None, "default")
    assert table["BATCH_LEASE"] == ("15000", "default")
    assert len(table) == len(Settings.model_fields)


@pytest.mark.parametrize("usable", [True, False])
def test_no_secret_is_shown(home: Path, monkeypatch: pytest.MonkeyPatch, usable: bool) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "hidden1")
    monkeypatch.setenv("AMQP_URL", "amqp://u:hidden2@h")
    monkeypatch.setenv("DATABASE_URL", "postgresql://u:hidden3@h/d")
    monkeypatch.setenv("SORA_REFERENCE_HOSTS", "a.example, b.example")
    monkeypatch.setenv("SORA_HEADERS", "X-Team: hidden4\nX-Gate: hidden5" if usable else "X-Team hidden4")
    table = settings_table(load_settings() if usable else None)
    assert "hidden" not in str(table)
    assert "amqp://u:***@h" in str(table)
    assert ("X-Team: ***, X-Gate: ***" in str(table)) is usable


@pytest.mark.parametrize(
    ("status", "body", "ok", "words"),
    [
        (200, b'{"object": "list", "data": []}', True, "with a listing"),
        (200, b'{"models": []}', False, "not a list"),
        (200, b"<html>", False, "not JSON"),
        (401, b"", False, "key"),
        (403, b"", False, "key"),
        (404, b"", False, "no Videos API"),
        (405, b"", True, "without a listing"),
        (429, b"", True, "rate-limiting"),
        (307, b"", False, "redirects to http://there"),
        (503, b"", False, "HTTP 503"),
    ],
)
def test_a_server_is_judged_by_its_answer(status: int, body: bytes, ok: bool, words: str) -> None:
    judged, message = verdict(status, {"Location": "http://there"}, body)
    assert judged is ok
    assert words in message


def test_a_database_is_looked_at_and_not_made(home: Path) -> None:
    assert "will be created" in database(load_settings()).message
    assert not list(home.iterdir())
    real = Database("sqlite:///sora-batch.db")
    real.open()
    real.close()
    check = database(load_settings())
    assert check.ok
    newest = max(name for steps in STEPS.values() for name in steps)[:4]
    assert check.message.startswith(f"{home}/sora-batch.db: schema {newest}")


@pytest.mark.parametrize("url", ["sqlite:///damaged.db", "sqlite:///no/folder/x.db", "mysql://h/d"])
def test_a_database_that_can_not_be_used_is_a_problem(home: Path, url: str) -> None:
    (home / "damaged.db").write_bytes(b"not a database, by far" * 100)
    (home / "no").write_text("a file")
    assert not database(Settings(database_url=url)).ok


def test_a_newer_database_is_a_problem(home: Path) -> None:
    real = Database("sqlite:///sora-batch.db")
    real.open()
    with real.connection():
        (table,) = [name for name in real.peewee.get_tables() if "migration" in name]
        columns = [column.name for column in real.peewee.get_columns(table)]
        row = real.peewee.execute_sql(f"SELECT * FROM {table}").fetchone()  # noqa: S608
        newer = [9 if name == "id" else "9999_later" if value == "0001_initial" else value
                 for name, value in zip(columns, row, strict=True)]  # fmt: skip
        real.peewee.execute_sql(f"INSERT INTO {table} VALUES ({', '.join('?' * len(newer))})", newer)  # noqa: S608
    real.close()
    check = database(load_settings())
    assert not check.ok
    assert "9999_later" in check.message


def test_the_video_folder_is_looked_at_and_not_made(home: Path) -> None:
    assert "will be created" in video_dir(load_settings()).message
    (home / "videos").mkdir()
    assert "writable" in video_dir(load_settings()).message
    (home / "file").write_text("")
    assert not video_dir(Settings(video_dir="file/below")).ok


def test_an_unreachable_server_is_a_problem(home: Path) -> None:
    assert "not set" in server(load_settings()).message
    check = server(Settings(openai_base_url="http://127.0.0.1:1/v1"))
    assert not check.ok
    assert "unreachable" in check.message


def test_rabbitmq_is_needed_by_nobody(home: Path) -> None:
    assert rabbitmq(load_settings()).ok
    assert not rabbitmq(load_settings(), declare=True).ok


def test_a_broker_that_is_not_there_is_told(home: Path) -> None:
    port = Port()
    found = rabbitmq(Settings(amqp_url=f"amqp://u:hidden@127.0.0.1:{port.number}"))
    port.release()
    assert not found.ok
    assert f"amqp://u:***@127.0.0.1:{port.number} can't be reached: " in found.message
    assert "Connection refused" in found.message


def test_doctor_finds_a_server_with_a_listing(call: Callable[..., Any], server: Any) -> None:
    result = call("doctor", "--json")
    document = json.loads(result.stdout)
    assert (result.exit_code, document["ok"]) == (0, True)
    assert "the-key" not in result.stdout
    assert {"Python", "SQLite", "pykka"} <= set(document["versions"])
    assert any("with a listing" in check["message"] for check in document["checks"])


def test_doctor_finds_a_wrong_key(call: Callable[..., Any], server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "another")
    result = call("doctor")
    assert result.exit_code == 1
    assert "PROBLEM" in result.stdout
    assert "is wrong or missing" in result.stdout


class Answering(http.server.BaseHTTPRequestHandler):
    """Answers as its class says."""

    status, location, body = 200, "", b"{}"

    def do_GET(self) -> None:
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(self.body)))
        if self.location:
            self.send_header("Location", self.location.format(host=self.headers["Host"]))
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_: Any) -> None:
        """It would go to standard error."""


@contextmanager
def answering(tls: ssl.SSLContext | None = None, **answer: Any) -> Iterator[str]:
    kind = type("Kind", (Answering,), answer)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), kind) as server:
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.mark.parametrize(
    ("location", "words"),
    [
        ("https://videos.example/api/v1/videos?limit=1", "set OPENAI_BASE_URL=https://videos.example/api/v1"),
        ("/api/v1/videos?limit=1", "set OPENAI_BASE_URL=http://{host}/api/v1"),
        ("http://{host}/v1/videos/?limit=1", "make the server, or the proxy in front of it, accept /videos"),
        ("https://videos.example/v1/videos?code=x&limit=1", "set OPENAI_BASE_URL=https://videos.example/v1"),
        ("https://login.example/?next=/v1", "set OPENAI_BASE_URL to the server itself"),
    ],
)
def test_a_redirect_that_a_run_would_meet_is_a_problem_with_its_way_out(home: Path, location: str, words: str) -> None:
    with answering(status=307, location=location) as host:
        check = server(Settings(openai_base_url=f"http://{host}/v1"))
    assert not check.ok
    assert words.format(host=host) in check.message


def test_a_server_that_never_answers_is_given_up(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_checks, "_TIMEOUT", 0.2)
    monkeypatch.setattr(server_checks, "_SHORT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        check = server(Settings(openai_base_url=f"http://127.0.0.1:{listening.getsockname()[1]}/v1"))
    assert not check.ok
    assert "no answer within 0.2 s" in check.message


def test_no_look_holds_doctor_up(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for_ever = threading.Event()
    monkeypatch.setattr(checks, "_LONGEST_CHECK", 0.1)
    monkeypatch.setattr(checks, "video_dir", lambda _: for_ever.wait())
    found = {check.name: check for check in checks.all_checks(load_settings())}
    for_ever.set()
    assert not found["VIDEO_DIR"].ok
    assert found["VIDEO_DIR"].message == "no answer within 0.1 s"
    assert {"database", "server", "simulator", "RabbitMQ"} <= set(found)


def test_doctor_checks_whatever_a_running_service_is_not_ready_without(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[set[Need]] = []

    def noted(settings: Settings, **how: bool) -> list[Need]:
        asked.append(set(needs(settings, **how)))
        return needs(settings, **how)

    monkeypatch.setenv("AMQP_URL", "amqp://127.0.0.1:1")
    monkeypatch.setattr(checks, "needs", noted)
    monkeypatch.setattr(health, "needs", noted)
    with BatchService(load_settings()) as service:
        Health(service, None)  # type: ignore[arg-type]  # nobody asks it
        told = {check.name for check in checks.all_checks(service.settings)}
    assert asked == [set(Need)] * 2
    assert {"database", "services", "VIDEO_DIR", "server", "RabbitMQ"} <= told


def test_the_processes_that_have_a_lease_are_named(home: Path) -> None:
    settings = load_settings()
    assert services(settings).message == "no process has a current lease: none makes videos just now"
    owner = this_process()
    with BatchService(settings) as service:
        assert services(settings).message.startswith("no process has")
        service._write(lambda: service._storage.owners.renew(owner, 60))
        assert services(settings).message == f"with a current lease: {owner.host} (pid {owner.pid})"


def test_a_certificate_that_can_not_be_verified_is_named_with_the_way_out(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl makes the certificate")
    subprocess.run(
        [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "key.pem", "-out", "cert.pem", "-days", "2",
         "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain("cert.pem", "key.pem")
    with answering(tls, body=b'{"data": []}') as host:
        look = [sys.executable, "-m", "actors.cli", "doctor", "--json"]
        environment = {"PATH": os.defpath, "PYTHONPATH": str(ROOT), "OPENAI_BASE_URL": f"https://{host}/v1"}
        found = [
            json.loads(subprocess.run(look, env=environment | more, capture_output=True, check=False).stdout)
            for more in ({}, {"SSL_CERT_FILE": str(home / "cert.pem")})
        ]
    refused, trusted = [{each["name"]: each for each in document["checks"]}["server"] for document in found]
    assert "has a certificate that can't be verified (self" in refused["message"]
    assert "set SSL_CERT_FILE to the file of its CA" in refused["message"]
    assert (refused["ok"], trusted["ok"]) == (False, True)


@pytest.mark.parametrize(
    ("listing", "body", "told"),
    [
        ("partial", b'{"data": [{"id": "a", "prompt": "a cat"}]}', True),
        ("whole", b'{"data": [{"id": "a", "prompt": "a cat"}]}', False),
        ("partial", b'{"data": [{"id": "a"}, 1]}', False),
        ("partial", b'{"data": []}', False),
    ],
)
def test_what_a_whole_listing_would_help_is_explained(home: Path, listing: str, body: bytes, told: bool) -> None:
    with answering(body=body) as host:
        check = server(Settings(openai_base_url=f"http://{host}/v1", sora_listing=listing))  # type: ignore[arg-type]
    assert check.ok
    assert ("set SORA_LISTING=whole if this address has one store behind it" in check.message) is told


def test_a_user_in_the_url_is_asked_as_run_asks(home: Path) -> None:
    class Kept(Answering):
        body = b'{"data": []}'
        said: ClassVar[list[str | None]] = []

        def do_GET(self) -> None:
            self.said.append(self.headers["Authorization"])
            super().do_GET()

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Kept) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        host = f"127.0.0.1:{listening.server_address[1]}"
        assert server(Settings(openai_base_url=f"http://m%65:p%40ss-%E5%90%8D@{host}/v1")).ok
        listening.shutdown()
    assert set(Kept.said) == {f"Basic {base64.b64encode('me:p@ss-名'.encode()).decode()}"}


LISTS = ("videos", answer(b'{"data": []}'))


def models(owner: str, *names: str) -> tuple[str, bytes]:
    listed = [{"id": name, "owned_by": owner} for name in names]
    return "models", answer(json.dumps({"object": "list", "data": listed}).encode())


def refused(status: str, message: str, **headers: str) -> tuple[str, bytes]:
    return "videos", answer(json.dumps({"error": {"message": message, "code": status[:3]}}).encode(), status, **headers)


VERSION = {"x-litellm-version": "1.110.2"}
WORKERS = "Asynchronous video jobs is not supported with --api-server-count > 1 because each has a store of its own"
UNHEALTHY = answer(b'{"status": "unhealthy", "error": "Scheduler worker exited; restart the server."}', "503 x")


@pytest.mark.parametrize(
    ("answers", "more", "ok", "words"),
    [
        ([LISTS, models("vllm", "wan")], {}, True, "(vLLM-Omni): has the Videos API, with a listing"),
        ([LISTS, models("sglang", "wan")], {}, True, "(SGLang): has the Videos API, with a listing"),
        ([LISTS, models("somebody", "wan")], {}, True, "/v1: has the Videos API, with a listing"),
        (
            [refused("400 Bad Request", "litellm.BadRequestError: LLM Provider NOT provided. Pass in ...", **VERSION), models("openai", "films")], {},
            True, ("(LiteLLM's proxy): has the Videos API, but no listing: LiteLLM lists only the videos of the provider "
            "that a header names: set SORA_HEADERS='custom-llm-provider: PROVIDER'"),
        ),
        (
            [refused("400 Bad Request", "No connected db."), models("openai", "films")], {}, False,
            ("answered HTTP 400: No connected db.; a LiteLLM proxy without a database answers this to an unknown key: "
            "check OPENAI_API_KEY"),
        ),
        ([refused("409 Conflict", WORKERS)], {}, False, f"HTTP 409: {WORKERS}; start vLLM-Omni with --api-server-count 1"),
        ([refused("401 Unauthorized", "Unauthorized")], {}, False, "another header (SORA_AUTH) (HTTP 401: Unauthorized)"),
        ([refused("500 Internal Server Error", "out of cheese")], {}, False, "HTTP 500: out of cheese; check the server's log; OPENAI_API_KEY is not set"),
        ([refused("500 Internal Server Error", "out of cheese")], {"openai_api_key": "k"}, False, "cheese; check the server's log"),
        (
            [("/health", UNHEALTHY), LISTS, models("sglang", "wan")], {}, False,
            "unhealthy and accepts no videos: Scheduler worker exited; restart the server.",
        ),
        (
            [LISTS, models("vllm", "wan", "ltx")], {"sora_model": "sora-2"}, False,
            "it does not list the model 'sora-2' (SORA_MODEL); it lists wan, ltx",
        ),
        ([LISTS, models("vllm", "wan")], {"sora_model": "wan"}, True, "with a listing"),
        (
            [LISTS, models("somebody", "wan")], {"sora_model": "sora-2"}, True,
            "with a listing; it does not list the model 'sora-2' (SORA_MODEL); it lists wan",
        ),
        ([LISTS, models("somebody", "openai/*")], {"sora_model": "sora-2"}, True, "/v1: has the Videos API, with a listing"),
        ([LISTS, models("vllm", "wan")], {"sora_request_format": "json"}, False, "set SORA_REQUEST_FORMAT=multipart"),
        ([refused("405 x", ""), models("nvidia", "wan")], {}, False, "accepts only JSON: set SORA_REQUEST_FORMAT=json"),
        ([refused("405 x", ""), models("nvidia", "wan")], {"sora_request_format": "json"}, True, "without a listing"),
    ],
)  # fmt: skip
def test_real_servers_are_told_with_what_to_set(home: Path, answers: Any, more: Any, ok: bool, words: str) -> None:
    with in_thread(listening(Recorder(answers))) as host:
        check = server(Settings(openai_base_url=f"http://{host}/v1", **more))
    assert check.ok is ok, check.message
    assert words in check.message
    assert check.message.startswith(f"http://{host}/v1")


@pytest.mark.parametrize(
    ("live", "words"), [("200 OK", "SGLang does not answer while it warms up"), ("404 x", "unreachable")]
)
def test_a_server_that_warms_up_is_told_from_one_that_is_not_there(
    home: Path, monkeypatch: pytest.MonkeyPatch, live: str, words: str
) -> None:
    monkeypatch.setattr(server_checks, "_TIMEOUT", 0.2)
    with in_thread(listening(Recorder([("/liveness", answer(b"{}", live))], hangs="videos|models"))) as host:
        check = server(Settings(openai_base_url=f"http://{host}/v1"))
    assert not check.ok
    assert words in check.message


def test_doctor_goes_the_way_that_a_batch_goes(home: Path) -> None:
    proxy = Proxy(answer(b"", "407 Proxy Authentication Required"))
    with in_thread(proxying(proxy)) as between:
        check = server(Settings(openai_base_url="https://videos.example/v1", https_proxy=between))
        assert "https://videos.example/v1 can't be reached: the proxy" in check.message
        assert "requires a user and a password (HTTP 407)" in check.message
    assert proxy.lines == ["CONNECT videos.example:443"]
    check = server(Settings(openai_base_url="https://videos.example/v1", ssl_cert_file=str(home / "none.pem")))
    assert not check.ok
    assert check.message.startswith(f"SSL_CERT_FILE='{home}/none.pem': can't read certificates from it")


def test_doctor_sends_what_a_batch_sends(home: Path) -> None:
    recorder = Recorder([LISTS, models("vllm", "wan")])
    with in_thread(listening(recorder)) as host:
        url = f"http://{host}/v1?api-version=preview"
        given = {"openai_api_key": "k", "sora_auth": "header:api-key", "sora_headers": "X-Team: films"}
        assert server(Settings(openai_base_url=url, **given)).ok  # type: ignore[arg-type]
    assert set(recorder.lines) == {"GET /v1/videos?limit=1&api-version=preview", "GET /v1/models?api-version=preview"}
    assert (set(recorder.values("api-key")), set(recorder.values("X-Team"))) == ({"k"}, {"films"})


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("SORA_SUBMIT_TIMOUT", "SORA_SUBMIT_TIMEOUT"), ("BATCH_CONCURENCY", "BATCH_CONCURRENCY"),
        ("OPENAI_BASE_URI", "OPENAI_BASE_URL"), ("openai_api_keys", "OPENAI_API_KEY"),
        ("OPENAPI_BASE_URL", "OPENAI_BASE_URL"), ("DATABSE_URL_FILE", "DATABASE_URL_FILE"), ("BACTH_TIMEOUT", "BATCH_TIMEOUT"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("in_file", [True, False])
def test_a_misspelt_setting_is_told_once_and_not_shown(
    call: Callable[..., Any], home: Path, monkeypatch: pytest.MonkeyPatch, name: str, known: str, in_file: bool
) -> None:
    if in_file:
        (home / ".env").write_text(f"{name}=hidden\n")
    else:
        monkeypatch.setenv(name, "hidden")
    sentence = f"unknown setting {name.upper()}; did you mean {known}?"
    listed, looked = call("list"), call("doctor")
    assert (listed.exit_code, listed.stderr) == (0, f"sora-batch: {sentence}\n")
    assert looked.stdout.count(sentence) == 1
    BatchService().close()
    assert call("list").stderr == f"sora-batch: {sentence}\n"
    assert "hidden" not in listed.output + looked.output


def test_a_name_that_is_nothing_like_ours_is_nobodys_business(
    call: Callable[..., Any], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / ".env").write_text("SORA_MODEL_OF_THE_YEAR=x\nPATH_TO_IT=x\nORA_MODEL=x\n")
    (home / ".env").write_text((home / ".env").read_text() + "FTP_PROXY=x\nNO_PROXI=x\n")
    for name in ("APP_URL", "HTTP_PROX", "NO_COLOR", "SSL_CERTFILE", "ORA_SIZE", "SORA_REFERENCE", "sora_size"):
        monkeypatch.setenv(name, "1280x720")
    assert call("list").stderr == "sora-batch: unknown setting ORA_MODEL; did you mean SORA_MODEL?\n"


def test_doctor_lists_the_settings_when_one_is_wrong(call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATCH_LEASE", "soon")
    result = call("doctor")
    assert result.exit_code == 1
    assert "BATCH_LEASE='soon'" in result.stdout
    assert "VIDEO_DIR" in result.stdout


@pytest.mark.parametrize(
    ("table", "settings", "ok", "words"),
    [
        (None, {}, True, "SORA_PRICES is not set: prices are unknown"),
        ('{"m": {"output_cost_per_second": 0.1, "as_of": "2026-11-29"}}', {"sora_model": "m", "sora_seconds": 8}, True,
         "1 model in prices.json; a request without a model, a size and a duration costs at most 0.80 USD (m, as of 2026"),
        ('{"*": {"output_cost_per_second": 0.1}}', {}, True, "at most 0.10 USD for each second (*)"),
        ('{"*": {"output_cost_per_video": 0.1}}', {}, True, "at most 0.10 USD (*)"),
        ('{"m": {"output_cost_per_second": 0.1}}', {}, True, "an unknown price: the request names no model"),
        ('{"m": {"output_cost_per_second": "0.1"}}', {}, False, "SORA_PRICES='prices.json': m.output_cost_per_second: "),
    ],
)  # fmt: skip
def test_the_price_of_a_request_without_a_model(
    home: Path, table: str | None, settings: dict[str, Any], ok: bool, words: str
) -> None:
    if table is not None:
        (home / "prices.json").write_text(table)
        settings = {**settings, "sora_prices": "prices.json"}
    check = checks.prices(Settings(**settings))
    assert check.ok is ok
    assert words in check.message
