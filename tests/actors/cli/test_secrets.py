"""No secret is shown, in whatever spelling: hostile ones in each setting, and all that the commands print of them."""

from __future__ import annotations

import base64
import contextlib
import http.server
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from actors.errors import SettingsError
from actors.settings import Settings, load_settings
from tests.servers.port import Port

HOSTILE = "'\"\\\n\r\t @#/?%:&=+;,[]{}<>|$é名😀\u2028\x85"
WHERE: dict[str, tuple[str, str]] = {
    "a key": ("OPENAI_API_KEY", "{secret}"),
    "a key of a file": ("OPENAI_API_KEY", "\n{secret}\n"),
    "a password of the server": ("OPENAI_BASE_URL", "http://me:{secret}@{host}/v1"),
    "an encoded password of the server": ("OPENAI_BASE_URL", "http://me:{encoded}@{host}/v1"),
    "a token of the server": ("OPENAI_BASE_URL", "http://{secret}@{host}/v1"),
    "an encoded token of the server": ("OPENAI_BASE_URL", "http://{encoded}@{host}/v1"),
    "a query of the server": ("OPENAI_BASE_URL", "http://{host}/v1?code={encoded}"),
    "a header": ("SORA_HEADERS", "X-Gate: {secret}"),
    "a token in a header": ("SORA_HEADERS", "Authorization: Bearer {secret}"),
    "a header in JSON": ("SORA_HEADERS", '{{"X-Gate": "{encoded}"}}'),
    "a token for HTTP": ("WEB_TOKEN", "{secret}"),
    "headers that are none": ("SORA_HEADERS", "{secret}"),
    "a password of the proxy": ("HTTP_PROXY", "http://me:{secret}@{host}"),
    "a password of a proxy for TLS": ("HTTPS_PROXY", "me:{encoded}@{host}"),
    "a server that is none": ("OPENAI_BASE_URL", "me:{secret}@{host}/v1"),
    "a password of the database": ("DATABASE_URL", "postgresql://me:{secret}@{nobody}/db"),
    "an encoded password of the database": ("DATABASE_URL", "postgresql://me:{encoded}@{nobody}/db"),
    "a token of the database": ("DATABASE_URL", "postgresql://{secret}@{nobody}/db"),
    "a query of the database": ("DATABASE_URL", "postgresql://{nobody}/db?user=me&password={secret}"),
    "an encoded query of the database": ("DATABASE_URL", "postgresql://{nobody}/db?user=me&password={encoded}"),
    "a database that is none": ("DATABASE_URL", "mysql://me:{secret}@{nobody}/db"),
    "a password of the broker": ("AMQP_URL", "amqp://me:{secret}@{nobody}/v"),
    "an encoded password of the broker": ("AMQP_URL", "amqp://me:{encoded}@{nobody}/v"),
    "a token of the broker": ("AMQP_URL", "amqp://{secret}@{nobody}/v"),
    "a broker that is none": ("AMQP_URL", "http://me:{secret}@{nobody}/v"),
}
COMMANDS = [
    ["doctor"], ["doctor", "--json"], ["list"], ["audit"], ["status", "nope"], ["status", "nope", "--json"],
    ["run", "-q", "-p", "a cat"], ["run", "--json", "-p", "a dog"],
]  # fmt: skip


class Quoting(http.server.BaseHTTPRequestHandler):
    """A server that refuses all credentials, and quotes them in every way."""

    def do_POST(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        header = (self.headers["Authorization"] or "").encode("latin-1").decode()
        kind, _, sent = header.partition(" ")
        secret = base64.b64decode(sent).decode() if kind == "Basic" else sent
        spelled = [
            header,
            secret,
            repr(secret),
            ascii(secret),
            json.dumps(secret),
            quote(secret),
            repr(secret.encode()),
        ]
        words = {"code": secret, "message": " ".join(spelled), "param": {secret: [spelled]}}
        body = json.dumps({"error": words}).encode()
        self.rfile.read(int(self.headers["Content-Length"] or 0))
        self.send_response(401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """It would go to standard error."""


@pytest.fixture
def quoting() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quoting) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.fixture
def nobody() -> Iterator[str]:
    port = Port()
    yield f"127.0.0.1:{port.number}"
    port.release()


def told(text: str) -> list[str]:
    """The lines that show any part of a secret."""
    return [line for line in text.splitlines() if "kestrel5" in line.lower() or "heron9" in line.lower()]


@example(where="a password of the database", middle="@?=%", command=["doctor"])
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=st.sampled_from(sorted(WHERE)), middle=st.text(HOSTILE, max_size=6), command=st.sampled_from(COMMANDS))
def test_no_command_shows_a_secret(
    call: Callable[..., Any], home: Path, quoting: str, nobody: str, where: str, middle: str, command: list[str]
) -> None:
    name, value = WHERE[where]
    # What stands before an unescaped colon is a user's or a header's name, and shown.
    secret = f"Kestrel5{middle.replace(':', '') if where.startswith(('a token', 'headers')) else middle}Heron9"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOG_LEVEL", "debug")
        patch.setenv("OPENAI_BASE_URL", f"http://{quoting}/v1")
        given = value.format(secret=secret, encoded=quote(secret, safe=""), host=quoting, nobody=nobody)
        patch.setenv(name, given)
        result = call(*command, "-v")
    said = base64.b64encode(f"me:{secret}".encode()).decode()
    assert told(result.stdout) == told(result.stderr) == []
    assert said not in result.output
    assert not told(repr(result.exception))
    kept = [path.read_bytes() for path in home.rglob("*") if path.is_file()]
    assert not [data for data in kept if b"Kestrel5" in data or b"Heron9" in data]


@pytest.mark.parametrize("where", sorted(WHERE))
def test_settings_show_no_secret(where: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name, value = WHERE[where]
    secret = "Kestrel5-Heron9"
    given = value.format(secret=secret, encoded=secret, host="host", nobody="host")
    monkeypatch.setenv(name, given)
    with contextlib.suppress(SettingsError):
        found = load_settings()
        for shown in (repr(found), str(found), str(found.model_dump()), found.model_dump_json()):
            assert not told(shown)
    with pytest.raises(Exception) as caught:
        Settings(**{name.lower(): f"\x00{given}", "batch_max_size": "none"})  # type: ignore[arg-type]
    assert not told(str(caught.value))


def test_a_key_with_a_line_break_at_its_end_works(
    call: Callable[..., Any], server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "the-key\n")
    assert call("doctor").exit_code == 0
    assert call("run", "-q", "-p", "a cat").exit_code == 0
    assert call("audit").exit_code == 0


def test_a_key_with_a_line_break_in_it_is_refused_by_name(
    call: Callable[..., Any], server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "the\nkey")
    for command in (["doctor"], ["run", "-p", "a cat"], ["audit"]):
        assert "OPENAI_API_KEY=***: contains a line break or another control character" in call(*command).output


@pytest.mark.parametrize("user", ["me:passw0rd@", "a-token@"])
def test_doctor_and_run_take_a_user_in_the_url_beside_a_key_or_neither_does(
    call: Callable[..., Any], server: Any, monkeypatch: pytest.MonkeyPatch, user: str
) -> None:
    base = Settings().openai_base_url or ""
    monkeypatch.setenv("OPENAI_BASE_URL", base.replace("://", f"://{user}"))
    doctor, run = call("doctor"), call("run", "-p", "a cat")
    assert (doctor.exit_code, run.exit_code) == (1, 2)
    for output in (doctor.stdout, run.stderr):
        assert "OPENAI_API_KEY=***: can't be sent together with the user in OPENAI_BASE_URL" in output
