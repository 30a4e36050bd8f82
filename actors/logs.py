"""Logging to standard error: one event with its data per line, as text or JSON, never with a secret.

Only our command line configures it; the library logs, and its program decides where to.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import threading
from contextlib import suppress
from typing import Any, TextIO

from storage.secrets import Secrets
from storage.traces import trace_of

OURS = ("actors", "storage")
"""The loggers whose level is set; others (aiohttp, peewee's SQL) show only warnings."""

UNSAFE = (
    *range(0x20), *range(0x7F, 0xA0), 0x61C, 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A), 0xFEFF,
)  # fmt: skip
"""Characters that could control a terminal, end a line, or reverse the text direction."""
_CONTROLS = {code: f"\\u{code:04x}" for code in UNSAFE if chr(code) not in "\n\t"}
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "action", "event"}


def configure(level: str, style: str, secrets: Secrets | None = None, *, service: bool = False) -> None:
    """Log from `level` on (`debug`, `info`, ...) as `text` or `json`. Calling it again replaces the earlier setup.

    `service`: with `json` each line of standard error is an object, also what is said to a person.
    """
    root = logging.getLogger()
    for old in [handler for handler in root.handlers if isinstance(handler, _StderrHandler)]:
        root.removeHandler(old)
    handler = _StderrHandler(secrets or Secrets())
    handler.setFormatter(_json_formatter() if style == "json" else _TextFormatter())
    handler.json = service and style == "json"
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    for name in OURS:
        logging.getLogger(name).setLevel(level.upper())
    # We log its errors once ourselves: each attempt to connect would log a dozen lines.
    logging.getLogger("pika").setLevel(logging.CRITICAL)
    threading.excepthook = _log_thread
    if service:  # what Python and libraries would print past the log, unmasked and not as JSON
        logging.captureWarnings(capture=True)
        sys.unraisablehook = _log_unraisable


def _log_thread(died: threading.ExceptHookArgs) -> None:
    """Python would print the traceback unmasked, with whatever its error quotes."""
    if issubclass(died.exc_type, SystemExit):
        return
    error = died.exc_value or died.exc_type()
    name = died.thread.name if died.thread else None
    logging.getLogger(__name__).error("a thread died", exc_info=error, extra={"action": "thread_died", "of": name})


def _log_unraisable(failed: sys.UnraisableHookArgs) -> None:
    """An error in a destructor or at exit, that no code can be told of."""
    error = failed.exc_value or failed.exc_type()
    of = failed.err_msg or f"in {failed.object!r}"
    logging.getLogger(__name__).error("an error was ignored", exc_info=error, extra={"action": "ignored", "of": of})


def tell(text: str, level: int = logging.WARNING, action: str | None = None) -> bool:
    """Log a sentence for a person where each line is an object; False: say it in words."""
    return _handler().tell(text, level, action)


def masked(text: str) -> str:
    """Mask the secrets in a text that does not go through the log."""
    return _handler().secrets.mask(text)


def harmless(text: str) -> str:
    """Mask secrets and escape control characters, as in a line of the log."""
    return _handler().harmless(text)


def _handler() -> _StderrHandler:
    handlers = [handler for handler in logging.getLogger().handlers if isinstance(handler, _StderrHandler)]
    return (handlers or [_StderrHandler(Secrets())])[0]


class _StderrHandler(logging.StreamHandler[Any]):
    """Looks up standard error for each line, so that a live view in its place prints lines above itself."""

    def __init__(self, secrets: Secrets) -> None:
        super().__init__()
        self.secrets = secrets
        self.json = False
        """Whether it takes, as objects too, the sentences that a person is told."""

    @property
    def stream(self) -> TextIO:
        return sys.stderr

    @stream.setter
    def stream(self, _: TextIO) -> None:
        """`StreamHandler.__init__` sets it; nothing is kept."""

    def format(self, record: logging.LogRecord) -> str:
        if hasattr(record, "action") and not hasattr(record, "event"):
            record.event = record.action  # so that each line can be looked for by it
        if not hasattr(record, "traceparent"):
            vars(record).update(trace_of(str(getattr(record, "batch_id", ""))))
        return self.harmless(super().format(record))

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  (its name in `logging`)
        """Say that a line could not be written; in JSON, where each line is to be."""
        if not self.json:
            super().handleError(record)
            return
        error = sys.exc_info()[1]
        line = {"level": "ERROR", "logger": __name__, "message": f"a line could not be logged: {error!r}"}
        with suppress(OSError, ValueError):  # standard error may be closed
            self.stream.write(f"{self.harmless(json.dumps(line | {'of': record.name}))}\n")

    def tell(self, text: str, level: int, action: str | None) -> bool:
        """Log a sentence that a person is to see, whatever the level; False: lines are not JSON."""
        if not self.json:
            return False
        record = logging.makeLogRecord({"name": OURS[0], "levelno": level, "levelname": logging.getLevelName(level)})
        record.msg = text
        if action is not None:
            record.action = action
        self.handle(record)
        return True

    def harmless(self, text: str) -> str:
        """Without secrets and terminal control characters: an error may quote outside input."""
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
    # Imported here: logging text does not need it.
    from pythonjsonlogger.json import JsonFormatter

    return JsonFormatter(
        ["levelname", "name", "message"],
        rename_fields={"levelname": "level", "name": "logger"},
        timestamp="time",
        json_ensure_ascii=False,
    )
