"""RabbitMQ's refusals in words, the pause before the next attempt, and logging each reason once per process.

The library changes no logger's level: those belong to the program. pika's own lines are dropped in threads that work on
our connections (`hush`): we log the same, once.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pika.exceptions import (
    AMQPError,
    AuthenticationError,
    ChannelClosedByBroker,
    ConnectionClosedByBroker,
    ProbableAccessDeniedError,
    ProbableAuthenticationError,
)

from storage.timing import backoff

logger = logging.getLogger("actors.rabbitmq")
ACCESS_REFUSED, NOT_FOUND, PRECONDITION_FAILED = 403, 404, 406

_DECLARE = "run `sora-batch doctor --declare` as a user who may configure"
_OTHERWISE = (
    "RabbitMQ refused a declaration: {said}; delete the queue once it is empty, or set AMQP_QUEUE_TYPE if only the "
    "queue type differs"
)
_SENTENCES = {
    ACCESS_REFUSED: "RabbitMQ refused access: {said}; grant it to the user {user}, or " + _DECLARE,
    NOT_FOUND: "RabbitMQ lacks a queue or an exchange: {said}; " + _DECLARE,
    405: _OTHERWISE,
    PRECONDITION_FAILED: _OTHERWISE,
    530: "RabbitMQ refused the connection: {said}; check AMQP_URL",
}
_LOGIN = "RabbitMQ refused the login of user {user}: check AMQP_URL"
_FULL = "RabbitMQ refused a message: its queue is full"
_NO_QUEUE = "RabbitMQ has no queue for a message: " + _DECLARE
_IN_THE_HANDSHAKE = re.compile(r"\(([0-9]+)\) (['\"])(.*)\2", re.DOTALL)
_AWAY, _REFUSED = (0.2, 2.0), (1.0, 30.0)
"""Seconds: the first pause, and the longest."""
_PROVEN_SECONDS = 30.0


class Nacked(AMQPError):  # type: ignore[misc]
    """The broker refused a message: a queue bound for it is full."""


class Unroutable(AMQPError):  # type: ignore[misc]
    """The broker has no queue for a message that must reach one."""


class ConnectionGone(AMQPError):  # type: ignore[misc]
    """The connection was lost or closed before the message was confirmed: the broker may have it."""


def innermost(error: Any) -> Any:
    """The root cause: pika nests it, and often says nothing itself."""
    told = *getattr(error, "args", ()), *getattr(error, "exceptions", ())[-1:]
    inner = next((each for each in told if isinstance(each, BaseException)), None)
    if inner is None:
        inner = getattr(error, "exception", None) or getattr(error, "__cause__", None)
    return error if inner is None else innermost(inner)


def refusal(error: Any, user: str) -> str | None:
    """What the broker refused and what to do, as a sentence. None: it is unreachable, or gave no reason."""
    template, said = _reason(innermost(error))
    return None if template is None else template.format(said=said, user=user)


def _reason(error: Any) -> tuple[str | None, str]:
    """The sentence and the broker's own words."""
    if isinstance(error, Nacked):
        return _FULL, ""
    if isinstance(error, Unroutable):
        return _NO_QUEUE, ""
    code, said = _verdict(error)
    if isinstance(error, AuthenticationError | ProbableAuthenticationError) and code == ACCESS_REFUSED:
        return _LOGIN, said
    return _SENTENCES.get(code or 0), said


def _verdict(error: Any) -> tuple[int | None, str]:
    """The broker's code and its words."""
    if isinstance(error, ChannelClosedByBroker | ConnectionClosedByBroker):
        return error.reply_code, error.reply_text
    if isinstance(error, AuthenticationError | ProbableAuthenticationError | ProbableAccessDeniedError):
        # pika only guesses, also when a node dies at that moment: its text quotes the broker's own words.
        found = _IN_THE_HANDSHAKE.search(str(error.args[0]) if error.args else "")
        if found is not None:
            return int(found[1]), found[3].replace("\\'", "'")
    return None, ""


class Standing:
    """The state of a process's connections to the broker: each reason is logged once, whichever meets it."""

    def __init__(self, *, silent: bool = False) -> None:
        """`silent`: log nothing; the caller gets exceptions."""
        self._silent = silent
        self._away: dict[str, str] = {}
        self._blocked: set[str] = set()
        self._lock = threading.Lock()

    @property
    def works(self) -> bool:
        """Whether every connection that was ever tried is open, and the broker takes messages over it."""
        with self._lock:
            return not (self._away or self._blocked)

    def away(self, who: str, sentence: str, error: Any) -> None:
        """A connection was lost or could not be made."""
        with self._lock:
            known = sentence in self._away.values()
            self._away[who] = sentence
            self._blocked.discard(who)
        if not known:
            told = innermost(error)
            more = {"error": f"{type(told).__name__}: {told}", "connection": who}
            self._say(logging.WARNING, sentence, "broker_away", more)

    def back(self, who: str) -> None:
        """A connection works; logged once all do."""
        with self._lock:
            was_away = self._away.pop(who, None) is not None
            all_back = was_away and not self._away
        if all_back:
            self._say(logging.INFO, "RabbitMQ is back", "broker_open")

    def blocked(self, who: str, *, now: bool) -> None:
        """The broker blocks or unblocks a connection; logged for the first and the last one."""
        with self._lock:
            before = bool(self._blocked)
            (self._blocked.add if now else self._blocked.discard)(who)
            changed = bool(self._blocked) != before
        if changed and now:
            self._say(logging.WARNING, "RabbitMQ blocks publishing: it is low on memory or disk", "broker_blocked")
        elif changed:
            self._say(logging.INFO, "RabbitMQ accepts messages again", "broker_open")

    def _say(self, level: int, text: str, action: str, more: dict[str, str] | None = None) -> None:
        if not self._silent:
            logger.log(level, text, extra={"action": action, **(more or {})})


class Attempts:
    """One connection's attempts, and the backoff between them: longer each time, and longest after refusals.

    An opened connection works, unless the broker closed the last one for what was done over it: then it has to last.
    Otherwise a repeated refusal would be retried at once and logged as new each time.
    """

    def __init__(self, who: str, user: str, standing: Standing) -> None:
        self._who, self._user, self._standing = who, user, standing
        self._tries, self._doubted = 0, False
        self._opened_at: float | None = None

    def lost(self, error: Any) -> float:
        """The connection was lost or could not be made; returns the seconds to wait."""
        refused = refusal(error, self._user)
        if self._opened_at is not None:
            self.lasts()
            self._doubted = self._doubted or refused is not None
            self._opened_at = None
        self._standing.away(self._who, refused or "RabbitMQ is unreachable; retrying", error)
        first, longest = _AWAY if refused is None else _REFUSED
        seconds = backoff(self._tries, first, longest, jitter=0.2)
        self._tries += 1
        return seconds

    def opened(self) -> None:
        """The connection is open."""
        self._opened_at = time.monotonic()
        if not self._doubted:
            self._works()

    def lasts(self) -> None:
        """The connection still works."""
        if self._doubted and self._opened_at is not None and time.monotonic() - self._opened_at > _PROVEN_SECONDS:
            self._works()

    def _works(self) -> None:
        self._doubted, self._tries = False, 0
        self._standing.back(self._who)


_ours = threading.local()


class _NotOurs(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:  # noqa: ARG002
        return not getattr(_ours, "depth", 0)


@contextmanager
def hush() -> Iterator[None]:
    """Drop pika's log lines in this thread until the end. Those of others' connections stay."""
    _ours.depth = getattr(_ours, "depth", 0) + 1
    try:
        yield
    finally:
        _ours.depth -= 1


_FILTER = _NotOurs()
for _name in [name for name in logging.Logger.manager.loggerDict if name.startswith("pika.")]:
    logging.getLogger(_name).addFilter(_FILTER)
