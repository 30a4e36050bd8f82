"""What every peer's process does alike: get ready, say so, wait for the word, make the videos, tell, wait for the end.

Ready means that everything is imported and made that needs no video; the clock runs from the word to the telling.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self


@dataclass(frozen=True, slots=True)
class Order:
    """What a peer is to make, where, and how."""

    base_url: str
    folder: Path
    videos: int
    concurrency: int
    poll: float
    """Seconds between two looks at a video."""
    batches: int = 1
    """The videos come in so many batches of the same size, all at once."""
    look_first: bool = False
    """Whether who polls looks at a video right after its POST, and not after a pause."""
    amqp_url: str | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read it from JSON."""
        given = json.loads(text)
        return cls(**given | {"folder": Path(given["folder"])})

    @property
    def prompts(self) -> list[str]:
        """A prompt for each video; no two are the same."""
        return [f"video {number}" for number in range(1, self.videos + 1)]


class Peer(Protocol):
    """One way to make many videos."""

    def open(self) -> None:
        """Get ready."""

    def run(self) -> dict[str, Any]:
        """Make the videos; tell what only this peer has to tell."""

    def close(self) -> dict[str, Any]:
        """End; tell what is left behind."""


class Script:
    """A peer that is a script: one coroutine a video, all in one loop, and a semaphore for its places."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._places = asyncio.Semaphore(order.concurrency)
        self._runner = asyncio.Runner()

    def open(self) -> None:
        self._runner.run(self._open())

    def run(self) -> dict[str, Any]:
        self._runner.run(self._make_all())
        return {}

    def close(self) -> dict[str, Any]:
        self._runner.run(self._close())
        self._runner.close()
        return {}

    async def _make_all(self) -> None:
        await asyncio.gather(*map(self._make_in_its_place, self._order.prompts))

    async def _make_in_its_place(self, prompt: str) -> None:
        async with self._places:
            await self._make(prompt)

    async def _open(self) -> None:
        raise NotImplementedError

    async def _make(self, prompt: str) -> None:
        raise NotImplementedError

    async def _close(self) -> None:
        raise NotImplementedError


def perform(make: Callable[[Order], Peer]) -> None:
    """Be a peer's process."""
    warnings.filterwarnings("ignore", "The Sora API is scheduled", DeprecationWarning)
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    peer = make(Order.parse(sys.argv[1]))
    try:
        peer.open()
        _say("ready")
        if sys.stdin.readline() == "go\n":
            _say(json.dumps(peer.run()))
            sys.stdin.readline()  # until what this process holds was measured
    finally:
        left = peer.close()
    _say(json.dumps(left))


def _say(line: str) -> None:
    print(line, flush=True)
