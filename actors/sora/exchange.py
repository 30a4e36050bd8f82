"""Requests to the Videos API and their outcomes."""

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
    """A video to create. None: the field is omitted."""

    prompt: str
    model: str | None
    seconds: int | None
    size: str | None
    reference: ReferenceRecord | None = None
    file_id: str | None = None
    seed: int | None = None
    params: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """Server-specific fields."""
    files: Mapping[str, ReferenceRecord | str] = field(default_factory=dict, hash=False)
    """Server-specific files by field: the bytes, or the id of a file that the server has."""

    def fields(self) -> dict[str, Any]:
        """The request's fields as in JSON, without the files."""
        given = {
            "prompt": self.prompt, "model": self.model, "seconds": self.seconds, "size": self.size, "seed": self.seed,
        }  # fmt: skip
        return {**{name: value for name, value in given.items() if value is not None}, **self.params}

    def all_files(self) -> dict[str, ReferenceRecord | str]:
        """The input reference and all files by field: the bytes, or the id of a file that the server has."""
        own = self.reference or self.file_id
        return {**({} if own is None else {"input_reference": own}), **self.files}


@dataclass(frozen=True, slots=True)
class Accepted:
    """The server accepted it: use this id from now on, whatever a GET says."""

    video: RemoteVideo
    remote_id: str
    told: dict[str, Any] | None = None
    """The price, if the answer has it."""


@dataclass(frozen=True, slots=True)
class Refused:
    """Nothing was made: the answer proves it, or (`sent` False) not a byte has left."""

    failure: Failure
    sent: bool
    retry_after: float | None = None
    passes: bool = True
    """Whether an unchanged retry may succeed; otherwise it is not retried."""


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """It may have been made: a byte has left, and there is no conclusive answer."""

    failure: Failure
    """Its message says what the POST met."""
    timed_out: bool = False
    """Whether it timed out: it may still arrive."""


class SendForbidden(Exception):
    """The guard of a request forbids sending it."""


@dataclass(frozen=True, slots=True)
class Page:
    """One page of the server's listing, or the known videos on it."""

    videos: tuple[RemoteVideo, ...]
    has_more: bool | None
    """None: the server did not say."""
    last: str | None = None
    """The id after which the next page begins."""
    hint: float | None = None
    """The seconds after which the server wants to be polled again."""


@dataclass(slots=True)
class ServerClock:
    """How far the server's clock is ahead of `boottime`, learned from its `Date` headers.

    Either machine's clock may be set at any time or drift for weeks: only the last readings count, and they are never
    compared with a clock that can be set.
    """

    offset: float | None = None
    """A lower bound: with it, a video never seems older than it is."""
    _readings: deque[float] = field(default_factory=lambda: deque(maxlen=_READINGS))

    def learn(self, date: str | None) -> None:
        """Read a `Date` header. It is truncated to whole seconds and arrives with a delay."""
        at = wire.http_date(date)
        if at is not None:
            self._readings.append(at - boottime())
            self.offset = min(self._readings)
