from __future__ import annotations

import json
import logging
import threading

import pytest

from actors.logs import configure, harmless, masked
from storage.secrets import Secrets

logger = logging.getLogger("actors.test")


def test_a_line_is_an_event_with_its_data(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", "text")
    logger.info("two\nlines", extra={"action": "job_failed", "batch_id": "b", "job_id": None, "why": "a b"})
    line = capsys.readouterr().err
    assert line.endswith(' info job_failed batch_id=b why="a b" "two\\nlines"\n')


def test_json_is_an_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", "json")
    logger.info("é", extra={"action": "started", "batch_id": "b"})
    document = json.loads(capsys.readouterr().err)
    assert {"level": "INFO", "message": "é", "action": "started", "batch_id": "b"}.items() <= document.items()


def test_only_our_own_loggers_are_set(capsys: pytest.CaptureFixture[str]) -> None:
    configure("debug", "text")
    logging.getLogger("peewee").debug("SELECT 1")
    logging.getLogger("storage.x").debug("seen")
    assert "SELECT" not in (text := capsys.readouterr().err)
    assert "seen" in text


def test_configuring_again_replaces_what_was(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", "json")
    configure("warning", "text")
    logger.info("no")
    logger.warning("once")
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("style", ["text", "json"])
def test_no_secret_is_logged_whoever_logs_it(capsys: pytest.CaptureFixture[str], style: str) -> None:
    configure("info", style, Secrets(["the-key", "p"]))
    logger.info("the-key Authorization: Bearer abc.def postgresql://u:p%40w@h/db sk-abcdefghijk http://h:80/v1")
    try:
        raise ValueError("the-key")
    except ValueError:
        logger.exception("bad", extra={"header": "the-key"})
    text = capsys.readouterr().err
    for secret in ("the-key", "abc.def", "p%40w", "abcdefghijk"):
        assert secret not in text
    assert "ValueError: ***" in text
    assert "http://h:80/v1" in text


@pytest.mark.parametrize("style", ["text", "json"])
def test_an_error_that_quotes_what_came_from_outside_steers_no_terminal(
    capsys: pytest.CaptureFixture[str], style: str
) -> None:
    configure("info", style)
    try:
        raise ValueError("\x1b[2J\x9b2J\x7f")
    except ValueError:
        logger.exception("bad\x9b", extra={"name_of_it": "\x1b\x9b"})
    text = capsys.readouterr().err
    assert all(character.isprintable() or character == "\n" for character in text)
    assert "\\u009b2J" in text
    if style == "json":
        assert json.loads(text)["name_of_it"] == "\x1b\x9b"


def test_a_text_beside_the_log_is_as_harmless(monkeypatch: pytest.MonkeyPatch) -> None:
    assert harmless("Bearer abc \x1b[2J the-key") == "Bearer *** \\u001b[2J the-key"
    configure("info", "text", Secrets(["the-key"]))
    assert harmless("the-key\n") == "***\n"
    assert masked("the-key\x1b") == "***\x1b"


def test_what_ends_a_thread_is_logged_without_secrets(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", "text", Secrets(["the-key"]))

    def die() -> None:
        raise ValueError("'the-key'")

    thread = threading.Thread(target=die, name="worker")
    thread.start()
    thread.join()
    text = capsys.readouterr().err
    assert "the-key" not in text
    assert "thread_died of=worker" in text
    assert "ValueError: '***'" in text
