"""What a Dispatcher has to do, and whom it tells: both outlive a Dispatcher that dies."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field

from actors.batch.scheduling import restart_allowed
from actors.messages import DispatcherMessage, Wait


@dataclass(frozen=True, slots=True)
class DispatcherCallbacks:
    """How the actors report to the world outside."""

    ended: Callable[[str], None]
    """Called on the loop with the id of a batch that has ended."""
    released: Callable[[str, str | None], None]
    """Called on the loop with the id of a released batch, and the error, if any."""
    closed: Future[None]
    """Done when every batch has been released after `Close`."""
    died: Callable[[Agenda, str], None]
    """Called on the loop when a bug has ended the Dispatcher, with its agenda and the error."""
    waits: dict[str, dict[str, Wait]]
    """Why videos are waiting: by batch id, then job id."""


@dataclass(frozen=True, slots=True)
class ReleaseOrder:
    """How to release a batch."""

    wanted: bool
    """Whether another process is to continue it."""
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """The input of a look at the database: the Dispatcher's state, for another thread."""

    asked: frozenset[str]
    running: frozenset[str]
    epochs: dict[str, int]
    releasing: dict[str, bool]
    """Batches without a supervisor to release, and whether they stay wanted."""
    room: int
    others: bool
    """Whether to claim batches that were not requested here too."""
    spared: frozenset[str]
    """Batches not to claim: their supervisors died too often recently, or they were released."""


@dataclass(slots=True)
class Agenda:
    """What a Dispatcher has to do, and leaves to the next one if it dies."""

    asked: set[str] = field(default_factory=set)
    """The batches in its care: requested here, or claimed."""
    own: set[str] = field(default_factory=set)
    """Those requested here: they also fail here if the key is refused."""
    releasing: dict[str, ReleaseOrder] = field(default_factory=dict)
    dropped: set[str] = field(default_factory=set)
    """Released here: not claimed again until requested here."""
    deaths: dict[str, list[float]] = field(default_factory=dict)
    """When supervisors died, by their batches."""
    everything: bool = False
    """Whether to claim batches that were not requested here too."""
    unread: list[DispatcherMessage] = field(default_factory=list)

    def ask(self, batch_ids: Iterable[str]) -> None:
        """Take batches into its care that were requested here."""
        self.asked.update(batch_ids)
        self.own.update(batch_ids)
        self.dropped.difference_update(batch_ids)

    def question(self, epochs: Mapping[str, int], now: float, *, most: int, key_refused: bool) -> Question:
        """What to look for in the database.

        Args:
            epochs: those of the batches that have a supervisor.
            now: by `time.monotonic()`.
            most: how many batches may have one.
            key_refused: whether the server refuses the key of this process.
        """
        running = frozenset(epochs)
        dying = {batch_id for batch_id, deaths in self.deaths.items() if not restart_allowed(deaths, now)}
        return Question(
            asked=frozenset(self.asked),
            running=running,
            epochs=dict(epochs),
            releasing={each: order.wanted for each, order in self.releasing.items() if each not in running},
            room=max(0, most - len(running)),
            others=self.everything and not key_refused,
            spared=frozenset(dying | self.dropped | set(self.releasing)),
        )

    def forget(self, batch_id: str) -> ReleaseOrder | None:
        """Drop a batch that is released, or has ended. Returns how it was to be released."""
        self.asked.discard(batch_id)
        self.own.discard(batch_id)
        return self.releasing.pop(batch_id, None)

    def supervisor_lost(self, batch_id: str, error: str, now: float) -> tuple[int, bool]:
        """Note that a supervisor died, and release its batch if that was too often: another process may have more luck.

        Returns:
            How often it has died, and whether it is started again.
        """
        deaths = self.deaths.setdefault(batch_id, [])
        self.asked.add(batch_id)
        count = len(deaths) + 1
        if again := restart_allowed(deaths, now):
            deaths.append(now)
        else:
            order = ReleaseOrder(wanted=True, error=f"its supervisor died {count} times: {error}")
            self.releasing.setdefault(batch_id, order)
        return count, again
