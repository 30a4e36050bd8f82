"""Logging to standard error: an event with its data a line, as text or JSON, and never with a secret.

Only programs of ours call this (the command line); the library logs, and leaves it to its program where to.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TextIO
from urllib.parse import unquote

from actors.settings import password_of

if TYPE_CHECKING:
    from actors.settings import Settings

OURS = ("actors", "storage")
"""The loggers whose level is set; of others (aiohttp, peewee's SQL) only warnings are shown."""

# What looks like a secret is hidden, whoever logs it: a bearer token, a key, a password in a URL.
_SECRETS = re.compile(
    r"(?P<before>\bBearer\s+)[^\s\"']+|(?P<user>://[^\s/:@]*:)[^\s/\"'@]+(?=@)|\bsk-[\w-]{8,}", re.IGNORECASE
)
_SHORTEST_SECRET = 4
UNSAFE = (
    *range(0x20), *range(0x7F, 0xA0), 0x61C, 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A), 0xFEFF,
)  # fmt: skip
"""What could steer a terminal, end a line, or turn the direction of writing around."""
_CONTROLS = {code: f"\\u{code:04x}" for code in UNSAFE if chr(code) not in "\n\t"}
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "action"}


def configure(level: str, style: str, secrets: Iterable[str] = ()) -> None:
    """Log from `level` on (`debug`, `info`, ...) as `text` or `json`. Calling it again replaces what was."""
    root = logging.getLogger()
    for old in [handler for handler in root.handlers if isinstance(handler, _StderrHandler)]:
        root.removeHandler(old)
    handler = _StderrHandler(frozenset(secret for secret in secrets if len(secret) >= _SHORTEST_SECRET))
    handler.setFormatter(_json_formatter() if style == "json" else _TextFormatter())
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    for name in OURS:
        logging.getLogger(name).setLevel(level.upper())
    # Its lines are ours, told once: each try to connect would be a dozen of them.
    logging.getLogger("pika").setLevel(logging.CRITICAL)


def harmless(text: str) -> str:
    """A text that does not go through the log, without secrets and control characters, as a line of it would be."""
    handlers = [handler for handler in logging.getLogger().handlers if isinstance(handler, _StderrHandler)]
    return (handlers or [_StderrHandler(frozenset())])[0].harmless(text)


def secrets_of(settings: Settings) -> set[str]:
    """The key and the passwords in URLs, as they are written and as they are meant."""
    amqp = settings.amqp_url.get_secret_value() if settings.amqp_url else ""
    urls = (settings.openai_base_url or "", settings.database_url, amqp)
    passwords = {password for url in urls if (password := password_of(url))}
    return {settings.api_key or "", *passwords, *map(unquote, passwords)} - {""}


class _StderrHandler(logging.StreamHandler[Any]):
    """Looks standard error up at each line, so that a live view that stands in for it prints lines above itself."""

    def __init__(self, secrets: frozenset[str]) -> None:
        super().__init__()
        self._secrets = sorted(secrets, key=len, reverse=True)

    @property
    def stream(self) -> TextIO:
        return sys.stderr

    @stream.setter
    def stream(self, _: TextIO) -> None:
        """`StreamHandler.__init__` sets it; there is nothing to keep."""

    def format(self, record: logging.LogRecord) -> str:
        return self.harmless(super().format(record))

    def harmless(self, text: str) -> str:
        """Without secrets, and without what could steer a terminal: an error may quote what came from outside."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return _SECRETS.sub(lambda match: f"{match['before'] or match['user'] or ''}***", text).translate(_CONTROLS)


class _TextFormatter(logging.Formatter):
    """`2026-11-23 12:00:05,123 info job_completed batch_id=nature job_id=nature-01 "the file is on disk"`."""

    def format(self, record: logging.LogRecord) -> str:
        words = [self.formatTime(record), record.levelname.lower(), _value(getattr(record, "action", record.name))]
        words += [f"{key}={_value(value)}" for key, value in _data(record).items()]
        words.append(json.dumps(record.getMessage(), ensure_ascii=False))
        line = " ".join(words)
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def _data(record: logging.LogRecord) -> dict[str, Any]:
    return {key: value for key, value in vars(record).items() if key not in _STANDARD and value is not None}


def _value(value: object) -> str:
    text = str(value)
    plain = text.isprintable() and text and not re.search(r"[\s\"=]", text)
    return text if plain else json.dumps(text, ensure_ascii=not text.isprintable())


def _json_formatter() -> logging.Formatter:
    # Imported here: who logs text needs none of it.
    from pythonjsonlogger.json import JsonFormatter

    return JsonFormatter(
        ["levelname", "name", "message"],
        rename_fields={"levelname": "level", "name": "logger"},
        timestamp="time",
        json_ensure_ascii=False,
    )
