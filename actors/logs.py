"""Logging to standard error: an event with its data a line, as text or JSON, and never with a secret.

Only programs of ours call this (the command line); the library logs, and leaves it to its program where to.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import threading
from typing import Any, TextIO

from storage.secrets import Secrets

OURS = ("actors", "storage")
"""The loggers whose level is set; of others (aiohttp, peewee's SQL) only warnings are shown."""

UNSAFE = (
    *range(0x20), *range(0x7F, 0xA0), 0x61C, 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A), 0xFEFF,
)  # fmt: skip
"""What could steer a terminal, end a line, or turn the direction of writing around."""
_CONTROLS = {code: f"\\u{code:04x}" for code in UNSAFE if chr(code) not in "\n\t"}
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "action"}


def configure(level: str, style: str, secrets: Secrets | None = None) -> None:
    """Log from `level` on (`debug`, `info`, ...) as `text` or `json`. Calling it again replaces what was."""
    root = logging.getLogger()
    for old in [handler for handler in root.handlers if isinstance(handler, _StderrHandler)]:
        root.removeHandler(old)
    handler = _StderrHandler(secrets or Secrets())
    handler.setFormatter(_json_formatter() if style == "json" else _TextFormatter())
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    for name in OURS:
        logging.getLogger(name).setLevel(level.upper())
    # Its lines are ours, told once: each try to connect would be a dozen of them.
    logging.getLogger("pika").setLevel(logging.CRITICAL)
    threading.excepthook = _log_thread


def _log_thread(died: threading.ExceptHookArgs) -> None:
    """Python would print the traceback itself, with whatever its error quotes."""
    if issubclass(died.exc_type, SystemExit):
        return
    error = died.exc_value or died.exc_type()
    name = died.thread.name if died.thread else None
    logging.getLogger(__name__).error("a thread died", exc_info=error, extra={"action": "thread_died", "of": name})


def masked(text: str) -> str:
    """A text that does not go through the log, without secrets."""
    return _handler().secrets.mask(text)


def harmless(text: str) -> str:
    """The same without control characters too, as a line of the log would be."""
    return _handler().harmless(text)


def _handler() -> _StderrHandler:
    handlers = [handler for handler in logging.getLogger().handlers if isinstance(handler, _StderrHandler)]
    return (handlers or [_StderrHandler(Secrets())])[0]


class _StderrHandler(logging.StreamHandler[Any]):
    """Looks standard error up at each line, so that a live view that stands in for it prints lines above itself."""

    def __init__(self, secrets: Secrets) -> None:
        super().__init__()
        self.secrets = secrets

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
        return self.secrets.mask(text).translate(_CONTROLS)


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
