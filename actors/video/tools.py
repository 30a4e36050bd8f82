"""The tools that all videos of a process share, among them the bodies of creates with files.

These are loaded and built before their intents are recorded: a POST has to leave within 2 s of its intent. On a busy
machine that is too short to load and encode large files, and the same would happen again and again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from actors.loop import IOLoop, tell
from actors.messages import PlaceFree, Ref
from actors.observer import Observer
from actors.settings import Settings
from actors.sora.client import SoraClient
from actors.sora.requests import Body, VideoSpec
from actors.sora.submission import Submitter
from actors.sora.watching import Watcher
from actors.video.keeping import Keeper
from storage.recorder import Recorder
from storage.records import Document, JobRecord, ReferenceRecord
from storage.storage import Storage
from storage.stores import Stores

_ENOUGH = 32 << 20
"""Bytes of unsent bodies from which on no further one is built: at most these and one more are held."""


@dataclass(frozen=True, slots=True)
class Tools:
    """What a VideoTask uses: one set for all workers of a process."""

    io: IOLoop
    client: SoraClient
    submitter: Submitter
    loader: Loader
    bodies: Bodies
    watcher: Watcher
    storage: Storage
    recorder: Recorder
    settings: Settings
    stores: Stores
    keeper: Keeper
    clean_up: Callable[[str], object]
    """Removes the orphan files of an ended batch, in the background."""
    observer: Observer = field(default_factory=Observer)


def has_files(job: JobRecord) -> bool:
    """Whether its create sends files that are stored here."""
    if job.reference is None and job.options is None:
        return False
    return any("digest" in kept for kept in (job.reference or {}, *job.files.values()))


class Loader:
    """Makes the request of a job, with the bytes of its files."""

    def __init__(self, io: IOLoop, client: SoraClient, storage: Storage, recorder: Recorder) -> None:
        self._io, self._client, self._storage, self._recorder = io, client, storage, recorder

    async def spec(self, job: JobRecord) -> VideoSpec:
        """What to ask for.

        Raises:
            LookupError: a file is not stored.
        """
        files = {name: await self._loaded(kept) for name, kept in job.files.items()}
        own = None if job.reference is None else await self._loaded(job.reference)
        reference, file_id = (None, own) if isinstance(own, str) else (own, None)
        return VideoSpec(job.prompt, job.model, job.duration, job.size, reference, file_id, job.seed, job.params, files)

    async def body(self, job: JobRecord) -> Body | None:
        """The body of its create; None: it would not be sent."""
        body = await self._client.prepare(await self.spec(job))
        return body if isinstance(body, Body) else None

    async def _loaded(self, kept: Document) -> ReferenceRecord | str:
        """The bytes of a file, or the id that the server knows it by."""
        if "file_id" in kept:
            return str(kept["file_id"])
        load = self._storage.jobs.reference
        return await self._io.outcome(self._recorder.read(lambda: load(kept["digest"])))


class Bodies:
    """Builds one body at a time, for all batches of a process. Lives on the I/O loop."""

    def __init__(self, build: Callable[[JobRecord], Awaitable[Body | None]]) -> None:
        self._build = build
        self._wanted: dict[Ref, JobRecord] = {}
        self._built: dict[Ref, tuple[str, Body | None]] = {}
        """With the id of the job."""
        self._starting: dict[str, Body] = {}
        """Of recorded submissions, until their POSTs leave."""
        self._building: asyncio.Task[None] | None = None

    def ready(self, job: JobRecord, supervisor: Ref) -> bool:
        """Whether a supervisor may start this job now; if not, it is notified when it may."""
        built_for, _ = self._built.get(supervisor, ("", None))
        if built_for == job.id or not has_files(job):
            return True
        self._built.pop(supervisor, None)
        self._wanted[supervisor] = job
        self._build_next()
        return False

    def starts(self, supervisor: Ref, submission_id: str) -> None:
        """Note that the job that was ready is started, as this submission."""
        _, body = self._built.pop(supervisor, ("", None))
        if body is not None:
            self._starting[submission_id] = body

    def of(self, submission_id: str) -> Body | None:
        """The body of a started submission; None: it must still be built, or is sent."""
        return self._starting.get(submission_id)

    def left(self, submission_id: str) -> None:
        """Note that its POST has left, or never will. Idempotent."""
        if self._starting.pop(submission_id, None) is not None:
            self._build_next()

    def drop(self, supervisor: Ref) -> None:
        """Note that a supervisor starts nothing for now. Idempotent."""
        self._wanted.pop(supervisor, None)
        if self._built.pop(supervisor, None) is not None:
            self._build_next()

    def _build_next(self) -> None:
        unsent = [*self._starting.values(), *(body for _, body in self._built.values() if body is not None)]
        if self._wanted and self._building is None and sum(len(body.content) for body in unsent) < _ENOUGH:
            supervisor, job = next(iter(self._wanted.items()))
            self._building = asyncio.get_running_loop().create_task(self._build_for(supervisor, job))

    async def _build_for(self, supervisor: Ref, job: JobRecord) -> None:
        try:
            body = await self._build(job)
        except Exception:  # noqa: BLE001  (its worker meets the same, and reports it)
            body = None
        self._building = None
        wanted = self._wanted.get(supervisor)
        if wanted is not None and wanted.id == job.id:
            del self._wanted[supervisor]
            self._built[supervisor] = job.id, body
            tell(supervisor, PlaceFree())
        self._build_next()
