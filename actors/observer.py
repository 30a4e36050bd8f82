"""Observer: is told what happens in a process, by whoever does it. This one ignores it all.

Called on the I/O loop and in the recorder's thread, perhaps thousands of times a second: an observer that counts must
be quick, must not block, and must be safe to call from several threads.
"""

from __future__ import annotations


class Observer:
    """The base of what counts."""

    def submission(self, outcome: str) -> None:
        """A submission's POST has ended (`bound`, `refused`, `not_sent`, `unknown`), or an unknown one was resolved.

        Resolved: `adopted` (its video was found), `absent` (proved to have made nothing) or `abandoned` (given up, to
        be paid for again).
        """

    def request(self, operation: str, status: int | None) -> None:
        """A request to the server was answered with an HTTP status; None: it got no answer."""

    def command(self, name: str, answer: str) -> None:
        """A command from RabbitMQ was answered: `accepted`, `rejected`, or kept as `unreadable`."""

    def takeovers(self, count: int) -> None:
        """Batches of owners that had died were claimed."""

    def finished(self, status: str) -> None:
        """A job has ended, and this process recorded it."""

    def generated(self, model: str | None, seconds: float) -> None:
        """The server has finished a video, so many seconds after it had accepted it."""

    def committed(self, seconds: float) -> None:
        """A transaction was committed; it took so many seconds."""
