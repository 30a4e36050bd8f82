"""What is asked of the Videos API, and what became of a request."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from actors.errors import Failure
from actors.sora import wire
from actors.sora.wire import RemoteVideo
from storage.records import ReferenceRecord
from storage.timing import boottime

_READINGS = 8


@dataclass(frozen=True, slots=True)
class VideoSpec:
    """What is asked of the server. None: the field is left out."""

    prompt: str
    model: str | None
    seconds: int | None
    size: str | None
    reference: ReferenceRecord | None = None
    file_id: str | None = None
    seed: int | None = None
    params: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """Further fields of the server."""
    files: Mapping[str, ReferenceRecord | str] = field(default_factory=dict, hash=False)
    """Further files of the server by field: the bytes, or the id of a file that it has."""

    def fields(self) -> dict[str, Any]:
        """The request's fields as JSON has them, but for files."""
        given = {
            "prompt": self.prompt, "model": self.model, "seconds": self.seconds, "size": self.size, "seed": self.seed,
        }  # fmt: skip
        return {**{name: value for name, value in given.items() if value is not None}, **self.params}

    def all_files(self) -> dict[str, ReferenceRecord | str]:
        """The input reference and the further files by field: the bytes, or the id of a file that the server has."""
        own = self.reference or self.file_id
        return {**({} if own is None else {"input_reference": own}), **self.files}


@dataclass(frozen=True, slots=True)
class Accepted:
    """The server made a video of it: this id is the one to use from now on, whatever a GET says."""

    video: RemoteVideo
    remote_id: str
    told: dict[str, Any] | None = None
    """The price, where its answer tells it."""


@dataclass(frozen=True, slots=True)
class Refused:
    """Nothing was made: an answer that proves it, or (`sent` False) not a byte has left."""

    failure: Failure
    sent: bool
    retry_after: float | None = None
    passes: bool = True
    """Whether it may go otherwise the next time, with nothing changed: else it is not tried again."""


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """It may have been made: a byte has left, and no answer tells."""

    failure: Failure
    """Its sentence says what the POST met."""
    timed_out: bool = False
    """Whether it was given up: it may still be on its way."""


class SendForbidden(Exception):
    """The guard of a create said that it may no longer be sent."""


@dataclass(frozen=True, slots=True)
class Page:
    """One page of the server's listing, or what it says of certain videos."""

    videos: tuple[RemoteVideo, ...]
    has_more: bool | None
    """None: the server didn't say."""
    last: str | None = None
    """The id behind which the next page begins."""
    hint: float | None = None
    """The seconds after which the server wants to be asked again."""


@dataclass(slots=True)
class ServerClock:
    """How far the server's clock is ahead of `boottime`, learned from its `Date` headers.

    Either machine's clock may be set at any time, or drift for weeks: only the last readings count, and none of them
    is compared with a clock that can be set.
    """

    offset: float | None = None
    """At least so much, it may be a little more: what was made is then not older than it seems."""
    _readings: deque[float] = field(default_factory=lambda: deque(maxlen=_READINGS))

    def learn(self, date: str | None) -> None:
        """Read a `Date` header. It has whole seconds, cut off, and took a while to come."""
        at = wire.http_date(date)
        if at is not None:
            self._readings.append(at - boottime())
            self.offset = min(self._readings)
