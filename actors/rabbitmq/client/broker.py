"""Where RabbitMQ is, and the errors that an application gets when no service answers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

from actors.errors import ErrorCode, NotFound, SettingsError, SoraBatchError
from actors.expectations import ID_PATTERN
from actors.rabbitmq import topology
from actors.rabbitmq.refusals import innermost, refusal
from actors.settings import load_settings
from storage.secrets import Secrets
from storage.urls import masked_url


class Unanswered(SoraBatchError):
    """RabbitMQ could not be reached or refused the command, or no service answered in time.

    Attributes:
        sent: the command may still be applied.
        queued: the command is in its queue, and no service listened there: it runs when one starts.
    """

    code = ErrorCode.UNAVAILABLE

    def __init__(self, message: str, *, sent: bool = False, queued: bool = False) -> None:
        super().__init__(message)
        self.sent, self.queued = sent, queued


@dataclass(frozen=True, slots=True)
class Broker:
    """Where RabbitMQ is, and the type of our queues, if they are not declared yet."""

    url: str
    queue_type: str = topology.QUORUM

    @classmethod
    def named(cls, url: str | None) -> Self:
        """The given one, or that of the settings.

        Raises:
            SettingsError: there is none.
        """
        if url is not None:
            return cls(url)
        settings = load_settings()
        if settings.amqp_url is None:
            raise SettingsError(
                "AMQP_URL is not set: set it to the RabbitMQ that `sora-batch serve` uses, "
                "for example AMQP_URL=amqp://guest:guest@localhost:5672/"
            )
        return cls(settings.amqp_url.get_secret_value(), settings.amqp_queue_type)

    def refusal(self, error: BaseException) -> str | None:
        """What the broker refused, if it refused anything."""
        return refusal(error, topology.connection_parameters(self.url).credentials.username)

    def unreachable(self, error: BaseException, *, sent: bool = False) -> Unanswered:
        """The error when it is unreachable or refuses us."""
        mask, refused = Secrets(urls=[self.url]).mask, self.refusal(error)
        if refused is not None:
            return Unanswered(mask(refused), sent=sent)
        inner, place = innermost(error), masked_url(self.url)
        reason = mask(str(inner)) or type(inner).__name__
        return Unanswered(
            f"RabbitMQ at {place} can't be reached: {reason}; check that it is running, and AMQP_URL", sent=sent
        )

    def unanswered(self, what: str, seconds: float, *, queued: bool = False) -> Unanswered:
        """The error when no service answers."""
        place = masked_url(self.url)
        text = (
            f"no answer within {seconds:g} s to {what}: is `sora-batch serve` running with the RabbitMQ at {place}? "
            "The command waits there until a service takes it"
        )
        if queued:
            text = (
                f"no service is listening at the RabbitMQ at {place}: {what} is queued, and runs when "
                "`sora-batch serve` starts there"
            )
        return Unanswered(text, sent=True, queued=queued)


def is_batch_id(batch_id: str) -> bool:
    """Whether it can be a batch's id. Anything else might be a pattern in a binding."""
    return re.fullmatch(ID_PATTERN, batch_id) is not None


def checked_id(batch_id: str) -> str:
    """The batch's id.

    Raises:
        NotFound: it can't be one.
    """
    if not is_batch_id(batch_id):
        raise NotFound(f"there is no batch {batch_id!r}: an id is 1 to 64 letters, digits, '-' or '_'")
    return batch_id
