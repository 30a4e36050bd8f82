"""What a Dispatcher is to do, and where it tells what came of it. It outlives a Dispatcher that dies."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from actors.messages import DispatcherMessage, Wait


@dataclass(frozen=True, slots=True)
class DispatcherCallbacks:
    """What the world outside the actors hears and sees of them."""

    ended: Callable[[str], None]
    """Called on the loop with the id of a batch that has ended."""
    released: Callable[[str, str | None], None]
    """Called on the loop with the id of a batch that was let go, and what went wrong, if anything did."""
    closed: Future[None]
    """Done when every batch has been let go after `Close`."""
    died: Callable[[Agenda, str], None]
    """Called on the loop when an error of ours has ended the Dispatcher: with what it leaves, and what went wrong."""
    waits: dict[str, dict[str, Wait]]
    """Why videos are waiting: by batch id, then job id."""


@dataclass(frozen=True, slots=True)
class ReleaseOrder:
    """How a batch is let go."""

    wanted: bool
    """Whether somebody else is to go on with it."""
    error: str | None = None


@dataclass(slots=True)
class Agenda:
    """What a Dispatcher is to do, and leaves to the next one if it dies."""

    asked: set[str] = field(default_factory=set)
    """The batches that are looked after: asked for here, or claimed before."""
    own: set[str] = field(default_factory=set)
    """Those of them that were asked for here: they fail here, too, where the key is refused."""
    releasing: dict[str, ReleaseOrder] = field(default_factory=dict)
    dropped: set[str] = field(default_factory=set)
    """What was let go here is not claimed again before it is asked for here."""
    deaths: dict[str, list[float]] = field(default_factory=dict)
    """When supervisors died, by their batches."""
    everything: bool = False
    """Whether to claim what was not asked for here, too."""
    unread: list[DispatcherMessage] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What a look at the database is to find out: the Dispatcher's state, for another thread."""

    asked: frozenset[str]
    running: frozenset[str]
    epochs: dict[str, int]
    releasing: dict[str, bool]
    """Batches without a supervisor that are to be left, and whether they stay wanted."""
    room: int
    others: bool
    """Whether to claim what was not asked for here, too."""
    spared: frozenset[str]
    """But not these: their supervisors died too often of late, or they were let go."""


def moved_on(standing: tuple[Any, int, str | None] | None, epoch: int) -> bool:
    """Whether a batch of ours was cancelled, taken over or deleted."""
    return standing is None or standing[1] != epoch
