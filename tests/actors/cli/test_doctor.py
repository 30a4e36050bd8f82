from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from actors.cli.checks import database, rabbitmq, server, verdict, video_dir
from actors.cli.settings_table import settings_table
from actors.settings import Settings, load_settings
from storage.database import MIGRATIONS, Database
from tests.servers.port import Port


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
    table = settings_table(load_settings() if usable else None)
    assert "hidden" not in str(table)
    assert "amqp://u:***@h" in str(table)


@pytest.mark.parametrize(
    ("status", "body", "ok", "words"),
    [
        (200, b'{"object": "list", "data": []}', True, "with a listing"),
        (200, b'{"models": []}', False, "no list"),
        (200, b"<html>", False, "not JSON"),
        (401, b"", False, "key"),
        (403, b"", False, "key"),
        (404, b"", False, "no Videos API"),
        (405, b"", True, "without a listing"),
        (429, b"", True, "limits its rate"),
        (307, b"", False, "redirects to http://there"),
        (503, b"", False, "HTTP 503"),
    ],
)
def test_a_server_is_judged_by_its_answer(status: int, body: bytes, ok: bool, words: str) -> None:
    judged, message = verdict(status, {"Location": "http://there"}, body)
    assert judged is ok
    assert words in message


def test_a_database_is_looked_at_and_not_made(home: Path) -> None:
    assert "will be made" in database(load_settings()).message
    assert not list(home.iterdir())
    real = Database("sqlite:///sora-batch.db")
    real.open()
    real.close()
    check = database(load_settings())
    assert check.ok
    newest = max(path.stem for path in MIGRATIONS.rglob("[0-9]*.py"))[:4]
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
    assert "will be made" in video_dir(load_settings()).message
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


def test_doctor_lists_the_settings_when_one_is_wrong(call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATCH_LEASE", "soon")
    result = call("doctor")
    assert result.exit_code == 1
    assert "BATCH_LEASE='soon'" in result.stdout
    assert "VIDEO_DIR" in result.stdout
