"""Runs `sora-batch` as if on a machine of its own: with a name and a clock that are given to it.

    python machine.py HOST SECONDS serve

HOST is the machine's name: processes of other names can't tell whether this one lives, and wait for its lease. SECONDS
is how far its clock is ahead. SIGUSR1 sets it an hour forward and SIGUSR2 an hour back, in the middle of the work.
"""

import signal
import socket
import sys
import time
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[2])

HOUR = 3600.0


class Clock:
    """The machine's idea of what time it is. Spans are measured by other clocks, which nobody sets."""

    def __init__(self, ahead: float) -> None:
        self._right, self._ahead = time.time, ahead

    def __call__(self) -> float:
        return self._right() + self._ahead

    def set(self, number: int, _: object) -> None:
        self._ahead += HOUR if number == signal.SIGUSR1 else -HOUR


def main() -> None:
    host, ahead, *arguments = sys.argv[1:]
    clock = Clock(float(ahead))
    # Before anything is imported that would keep the right ones.
    time.time = clock
    socket.gethostname = lambda: host
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, clock.set)
    from actors.cli import main as program

    program(arguments)


if __name__ == "__main__":
    main()
