"""Puts a batch's events in order, each once. Pure."""

from __future__ import annotations

from actors.batch.events import Event


class InOrder:
    """Takes events as they arrive, repeated or out of order, and yields them by their sequence."""

    def __init__(self, next_sequence: int | None) -> None:
        """`next_sequence`: of the first event to yield; None: set by `start`."""
        self.next = next_sequence
        self._ahead: dict[int, Event] = {}

    def start(self, sequence: int) -> None:
        """Begin with this one, unless the beginning is already set."""
        if self.next is None:
            self.next = sequence
            self._forget()

    def add(self, event: Event) -> None:
        """Add an event."""
        if self.next is None or int(event.sequence) >= self.next:
            self._ahead[int(event.sequence)] = event

    def take(self) -> Event | None:
        """The next event, if it has arrived."""
        if self.next is None or self.next not in self._ahead:
            return None
        self.next += 1
        return self._ahead.pop(self.next - 1)

    @property
    def missing(self) -> int | None:
        """The last missing sequence number before events that have arrived; None: no gap."""
        if self.next is None or not self._ahead or self.next in self._ahead:
            return None
        return min(self._ahead) - 1

    def pass_over(self, sequence: int) -> None:
        """Skip the missing events up to this one: they no longer exist."""
        if self.next is not None:
            self.next = max(self.next, min([sequence + 1, *self._ahead]))

    def _forget(self) -> None:
        self._ahead = {sequence: event for sequence, event in self._ahead.items() if sequence >= (self.next or 0)}
