"""Health: whether a service has all that it needs at this moment. `doctor` makes the same checks of a folder.

What is answered names no path and no host, since anybody may ask; why a check fails is logged, when it begins to.
"""

from __future__ import annotations

import asyncio
import logging
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from actors.errors import StorageError

if TYPE_CHECKING:
    from actors.loop import IOLoop
    from actors.rabbitmq.connection import Connection
    from actors.service import BatchService

logger = logging.getLogger(__name__)
LONGEST = 2.0
"""Seconds that a check of a running service may take: what does not answer by then is lost."""
_BEAT_SECONDS = 5.0
_BLOCK = bytes(4096)


@dataclass(frozen=True, slots=True)
class Check:
    """What one look found."""

    name: str
    ok: bool
    message: str


def bounded(name: str, look: Callable[[], Check], seconds: float) -> Check:
    """What a look finds; a problem, if it takes too long: a host or a disk may take a request and never answer."""
    found: list[Check | BaseException] = []

    def run() -> None:
        try:
            found.append(look())
        except BaseException as error:  # noqa: BLE001  (raised where it is waited for)
            found.append(error)

    thread = threading.Thread(target=run, name=f"check-{name}", daemon=True)
    thread.start()
    thread.join(seconds)
    if not found:
        return Check(name, ok=False, message=f"no answer within {seconds:g} s")
    if isinstance(found[0], BaseException):
        raise found[0]
    return found[0]


def writable(folder: Path) -> tuple[bool, str]:
    """Whether files can be made in a folder, or the folder where it is not there yet; and why not."""
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not there.is_dir():
        return False, f"{there} is no folder"
    try:
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(_BLOCK)  # a full disk makes files, and takes nothing into them
            file.flush()
            return True, ""
    except OSError as error:
        return False, f"{there} is not writable ({error.strerror})"


class Health:
    """The checks of a running service, each made when it is asked for: between two questions it costs nothing."""

    def __init__(self, service: BatchService, io: IOLoop, *, makes_videos: bool = True) -> None:
        """Check nothing yet.

        Args:
            service: whose health.
            io: the loop that asks. The checks are made beside it, each by one thread at a time.
            makes_videos: whether this process does; if not, it needs no lease, no key and no folder to write to.
        """
        self._service, self._io = service, io
        self._looks: dict[str, Callable[[], str | None]] = {"database": self._database}
        if makes_videos:
            self._looks |= {"lease": self._lease, "store": self._store, "key": self._key}
        if service.broker is not None:
            self._looks["rabbitmq"] = self._rabbitmq
        self._running: dict[str, asyncio.Future[str | None]] = {}
        self._failed: frozenset[str] = frozenset()

    async def live(self) -> list[Check]:
        """Whether the loop that carries the actors still turns; no database is asked."""
        answered = self._io.loop.create_future()
        self._service.beat(lambda: self._io.call(_answer, answered))
        done, _ = await asyncio.wait({answered}, timeout=_BEAT_SECONDS)
        return [Check("loop", ok=bool(done), message=_SENTENCES["loop"] if not done else "turns")]

    async def ready(self) -> list[Check]:
        """Whether the service can make videos and tell of them: each check, the failed ones with a sentence."""
        whys = await asyncio.gather(*(self._why(name) for name in self._looks))
        reasons = {name: why for name, why in zip(self._looks, whys, strict=True) if why is not None}
        self._log(reasons)
        return [
            Check(name, ok=name not in reasons, message=_SENTENCES[name] if name in reasons else "ok")
            for name in self._looks
        ]

    async def _why(self, name: str) -> str | None:
        """Why a check fails. One that still hangs is not begun a second time."""
        running = self._running.get(name)
        if running is None:
            running = self._running[name] = asyncio.ensure_future(self._io.offload(self._looks[name]))
            running.add_done_callback(lambda done: self._over(name, done))
        done, _ = await asyncio.wait({running}, timeout=LONGEST)
        if not done:
            return f"no answer within {LONGEST:g} s"
        error = running.exception()
        return repr(error) if error is not None else running.result()

    def _over(self, name: str, done: asyncio.Future[str | None]) -> None:
        del self._running[name]
        if not done.cancelled():
            done.exception()  # nobody may have waited so long for it

    def _log(self, reasons: dict[str, str]) -> None:
        failed = frozenset(reasons)
        if failed == self._failed:
            return
        self._failed = failed
        if failed:
            told = "; ".join(f"{name}: {why}" for name, why in reasons.items())
            logger.warning("not ready", extra={"action": "not_ready", "failed": ",".join(reasons), "error": told})
        else:
            logger.info("ready", extra={"action": "ready"})

    def _database(self) -> str | None:
        obstacle = self._service.write_obstacle
        if obstacle is None:
            try:
                self._service.ping()
            except StorageError as error:
                obstacle = str(error)
        return obstacle

    def _lease(self) -> str | None:
        if self._service.is_idle:  # `demo --web` whose batch has ended: the next one renews it
            return None
        try:
            return None if self._service.lease_is_current else "the lease has run out, or was not yet taken"
        except StorageError:
            return None  # by its own clock it lasts; that the database is away is another check's to say

    def _store(self) -> str | None:
        stores = self._service.stores
        folder = stores.folder.root
        if not folder.is_dir():
            return f"{folder} is no folder any more"
        ok, why = writable(folder)
        return why if not ok else None if stores.bucket is None else stores.bucket.obstacle()

    def _key(self) -> str | None:
        return "the server refused the key" if self._service.key_refused else None

    def _rabbitmq(self) -> str | None:
        connection = self._service.broker
        assert connection is not None
        if not connection.is_open:
            return f"not connected ({connection.why!r})" if connection.why else "not connected"
        if not connection.standing.works:
            return "a connection is away, or the broker takes no messages"
        return None if _answers(connection) else f"no answer within {LONGEST:g} s"


def _answers(connection: Connection) -> bool:
    """Whether the broker answers at this moment: a connection to one that hangs looks open for a minute."""
    answered = threading.Event()

    def opened(channel: object) -> None:
        answered.set()
        channel.close()  # type: ignore[attr-defined]

    def ask() -> None:
        if connection.is_open:
            connection.open_channel(opened)

    connection.call(ask)
    return answered.wait(LONGEST / 2)


def _answer(answered: asyncio.Future[None]) -> None:
    if not answered.done():
        answered.set_result(None)


_SENTENCES = {
    "loop": "the loop that makes videos does not answer",
    "database": "the database can't be read or written; the log says why",
    "rabbitmq": "RabbitMQ can't be reached or takes no messages; the log says why",
    "lease": "this process does not hold a current lease: it may start no video",
    "store": "the store of finished files can't be written to; the log says why",
    "key": "the server refused the key (OPENAI_API_KEY): nothing is claimed",
}
