"""What RabbitMQ refuses, in words; how long to wait before the next try; and saying so once in a process."""

from __future__ import annotations

import logging
import re
import threading
import time
from typing import Any

from pika.exceptions import (
    AuthenticationError,
    ChannelClosedByBroker,
    ConnectionClosedByBroker,
    NackError,
    ProbableAccessDeniedError,
    ProbableAuthenticationError,
    UnroutableError,
)

from storage.timing import backoff

logger = logging.getLogger("actors.rabbitmq")
ACCESS_REFUSED, NOT_FOUND, PRECONDITION_FAILED = 403, 404, 406

_DECLARE = "run `sora-batch doctor --declare` as a user who may configure"
_OTHERWISE = (
    "RabbitMQ refused a declaration: {said}; delete it there once it is empty, or set AMQP_QUEUE_TYPE where only the "
    "type of the queue differs"
)
_SENTENCES = {
    ACCESS_REFUSED: "RabbitMQ refused access: {said}; grant it to the user {user}, or " + _DECLARE,
    NOT_FOUND: "RabbitMQ lacks what is needed: {said}; " + _DECLARE,
    405: _OTHERWISE,
    PRECONDITION_FAILED: _OTHERWISE,
    530: "RabbitMQ refused the connection: {said}; check AMQP_URL",
}
_LOGIN = "RabbitMQ refused the login of user {user}: check AMQP_URL"
_FULL = "RabbitMQ refused a message: the queue that it goes to is full"
_NO_QUEUE = "RabbitMQ has no queue for a message: " + _DECLARE
_IN_THE_HANDSHAKE = re.compile(r"\(([0-9]+)\) (['\"])(.*)\2", re.DOTALL)
_AWAY, _REFUSED = (0.2, 2.0), (1.0, 30.0)
"""Seconds: the first pause, and the longest."""
_PROVEN_SECONDS = 30.0


def innermost(error: Any) -> Any:
    """What is the matter: pika nests it, and often says nothing itself."""
    inner = next((each for each in getattr(error, "args", ()) if isinstance(each, BaseException)), None)
    if inner is None:
        inner = getattr(error, "exception", None) or getattr(error, "__cause__", None)
    return error if inner is None else innermost(inner)


def refusal(error: Any, user: str) -> str | None:
    """Why the broker will not have it, and what to do, as a sentence. None: it is away, or said nothing."""
    template, said = _reason(innermost(error))
    return None if template is None else template.format(said=said, user=user)


def _reason(error: Any) -> tuple[str | None, str]:
    """The sentence, and the broker's own words."""
    if isinstance(error, NackError):
        return _FULL, ""
    if isinstance(error, UnroutableError):
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
        # pika only suspects it, also of a node that dies in that moment: the broker's own word is quoted in its text.
        found = _IN_THE_HANDSHAKE.search(str(error.args[0]) if error.args else "")
        if found is not None:
            return int(found[1]), found[3].replace("\\'", "'")
    return None, ""


class Standing:
    """How the connections of a process stand with the broker: each reason is logged once, whoever meets it."""

    def __init__(self) -> None:
        self._away: dict[str, str] = {}
        self._lock = threading.Lock()

    def away(self, who: str, sentence: str, error: Any) -> None:
        """A connection is lost or was not made."""
        with self._lock:
            known = sentence in self._away.values()
            self._away[who] = sentence
        if not known:
            told = innermost(error)
            more = {"error": f"{type(told).__name__}: {told}", "connection": who}
            logger.warning(sentence, extra={"action": "broker_away", **more})

    def back(self, who: str) -> None:
        """A connection works; told when the last one does."""
        with self._lock:
            was_away = self._away.pop(who, None) is not None
            all_back = was_away and not self._away
        if all_back:
            logger.info("RabbitMQ is back", extra={"action": "broker_open"})


class Attempts:
    """One connection's tries: how long to wait before the next one. Longer each time, and longest where it is refused.

    One that was opened works, unless the broker closed the last one for what was done over it: then this one has to
    last. Else what is refused again and again would be tried again at once, and be told as a new refusal.
    """

    def __init__(self, who: str, user: str, standing: Standing) -> None:
        self._who, self._user, self._standing = who, user, standing
        self._tries, self._doubted = 0, False
        self._opened_at: float | None = None

    def lost(self, error: Any) -> float:
        """It is lost, or was not made; return how many seconds to wait."""
        refused = refusal(error, self._user)
        if self._opened_at is not None:
            self.lasts()
            self._doubted = self._doubted or refused is not None
            self._opened_at = None
        self._standing.away(self._who, refused or "RabbitMQ is away; trying again", error)
        first, longest = _AWAY if refused is None else _REFUSED
        seconds = backoff(self._tries, first, longest, jitter=0.2)
        self._tries += 1
        return seconds

    def opened(self) -> None:
        """It is made."""
        self._opened_at = time.monotonic()
        if not self._doubted:
            self._works()

    def lasts(self) -> None:
        """It is still there."""
        if self._doubted and self._opened_at is not None and time.monotonic() - self._opened_at > _PROVEN_SECONDS:
            self._works()

    def _works(self) -> None:
        self._doubted, self._tries = False, 0
        self._standing.back(self._who)
