"""Fetches the finished files of a batch into a folder, each from the first place that has it."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pydantic import BaseModel

from actors.batch.job_views import Job, VideoFile, video_url
from actors.batch.views import Batch
from actors.errors import ErrorCode, SoraBatchError
from actors.fetching.http import HttpFiles
from actors.fetching.naming import Taken, allowed, names
from actors.fetching.places import CantWrite, Incoming, fetched_again, incoming, is_there, prepare, stored_name
from actors.loop import DaemonThreads
from storage.stores import path_of

if TYPE_CHECKING:
    from actors.settings import Settings
    from storage.stores import Stores

_AT_ONCE = 4
_JOB_ID, _SHA256 = re.compile(r"[A-Za-z0-9_-]{1,80}"), re.compile(r"[0-9a-f]{64}")
NameOf = Callable[[Job], str]
"""The name of a job's file in the folder; a `/` leads into folders below."""


class FetchedFile(BaseModel, frozen=True):
    """A file that is there, with the recorded bytes."""

    job_id: str
    path: str
    bytes: int
    sha256: str
    was_there: bool
    """It had been fetched before."""


class FetchProblem(BaseModel, frozen=True):
    """A finished file that could not be fetched, and why."""

    job_id: str
    code: str
    message: str


class FetchReport(BaseModel, frozen=True):
    """The files of a batch in a folder. Videos that are not completed have none, and are not named."""

    batch_id: str
    folder: str
    files: list[FetchedFile]
    problems: list[FetchProblem]

    @property
    def complete(self) -> bool:
        """Whether every finished file is there."""
        return not self.problems


class _Source(NamedTuple):
    """A place that may have a file."""

    name: str
    read: Callable[[Incoming], Iterator[bytes]]
    """The bytes that are still missing."""


class _StoppedError(SoraBatchError):
    """The caller was interrupted."""


class Fetcher:
    """Fetches into one folder; for several batches, one after the other."""

    def __init__(self, folder: Path, settings: Settings, stores: Stores) -> None:
        """Say where to and where from.

        Args:
            folder: of the user's.
            settings: whose WEB_PUBLIC_URL names the service that has the files where their record tells of none, and
                whose WEB_TOKEN that service asks for.
            stores: the folders and buckets that can be read here.

        Raises:
            InvalidRequest: the folder is not writable.
        """
        prepare(folder)
        self.folder, self._settings, self._stores = folder, settings, stores
        self._taken, self._lock, self._stop = Taken(), threading.Lock(), threading.Event()
        self._http = HttpFiles(settings, self._sleep)

    def fetch(
        self,
        batch: Batch,
        told: Callable[[FetchedFile | FetchProblem], object] = lambda _: None,
        name_of: NameOf = stored_name,
    ) -> FetchReport:
        """Fetch the files of a batch that are finished. Failures are named; the rest is fetched.

        Args:
            batch: with its jobs.
            told: called with each file, as soon as it is there, and with each problem.
            name_of: the names of its files.
        """
        jobs = [job for job in batch.jobs if job.video is not None]
        outcomes: list[FetchedFile | FetchProblem] = []
        threads = DaemonThreads(_AT_ONCE)
        try:
            for outcome in threads.map(lambda job: self._one(job, name_of), jobs):
                outcomes.append(outcome)
                told(outcome)
        except BaseException:
            self._stop.set()  # they end with the next byte; for one that does not come, nobody waits
            raise
        finally:
            threads.shutdown()
        files = [each for each in outcomes if isinstance(each, FetchedFile)]
        problems = [each for each in outcomes if isinstance(each, FetchProblem)]
        return FetchReport(batch_id=batch.id, folder=str(self.folder), files=files, problems=problems)

    def _one(self, job: Job, name_of: NameOf) -> FetchedFile | FetchProblem:
        assert job.video is not None
        try:
            return self._file(job, job.video, name_of)
        except SoraBatchError as error:
            return FetchProblem(job_id=job.id, code=error.code.value, message=error.message)
        except (OSError, ValueError) as error:  # a name that can't be written is a ValueError
            text = f"can't write to {self.folder}: {getattr(error, 'strerror', None) or error}"
            return FetchProblem(job_id=job.id, code=ErrorCode.STORAGE.value, message=text)

    def _file(self, job: Job, video: VideoFile, name_of: NameOf) -> FetchedFile:
        if not (_JOB_ID.fullmatch(job.id) and _SHA256.fullmatch(video.sha256)):
            text = f"the service named no usable file: job {job.id[:80]!r}, SHA-256 {video.sha256[:80]!r}"
            raise SoraBatchError(text, code=ErrorCode.DOWNLOAD_FAILED)
        if video.removed_at is not None:
            text = f"its file was removed on {video.removed_at:%Y-%m-%d}, by VIDEO_KEEP or prune --files"
            raise SoraBatchError(text, code=ErrorCode.NOT_FOUND)
        first = self.folder / allowed(name_of(job), self.folder)
        path = self._there(first, video)
        was_there = path is not None
        if path is None:
            first.parent.mkdir(parents=True, exist_ok=True)
            with incoming(first.parent, f"{job.id}-{video.sha256[:16]}", video.bytes) as part:
                self._receive(job, video, part)
                path = self._put(part, first)
        return FetchedFile(job_id=job.id, path=str(path), bytes=video.bytes, sha256=video.sha256, was_there=was_there)

    def _there(self, first: Path, video: VideoFile) -> Path | None:
        """The file, if an earlier fetch has put it there."""
        for path in takewhile(Path.exists, names(first)):
            if is_there(path, video.bytes, video.sha256):
                with self._lock:
                    if path not in self._taken:
                        self._taken.add(path)
                        return path
        return None

    def _put(self, part: Incoming, first: Path) -> Path:
        for path in names(first):
            with self._lock, suppress(FileExistsError):
                if path not in self._taken and not path.exists():
                    part.put(path)
                    self._taken.add(path)
                    return path
        raise AssertionError

    def _receive(self, job: Job, video: VideoFile, part: Incoming) -> None:
        reasons = []
        for source in self._sources(job, video):
            try:
                self._from(source, video, part)
            except (CantWrite, _StoppedError):
                raise
            except (OSError, SoraBatchError) as error:
                reasons.append(_reason(source, error))
            else:
                return
        code = next((code for code, _ in reasons if code is not ErrorCode.NOT_FOUND), ErrorCode.NOT_FOUND)
        raise SoraBatchError(
            "; ".join(text for _, text in reasons) + self._way_out(job, video, reasons[0][0]), code=code
        )

    def _way_out(self, job: Job, video: VideoFile, code: ErrorCode) -> str:
        """What helps where nobody has a file; `code`: of its store's answer."""
        if code is ErrorCode.DOWNLOAD_FAILED:
            return f"; remove that file, and {fetched_again(job)}"
        if code is ErrorCode.NOT_FOUND and not video.uri.startswith("file:"):
            return f"; {fetched_again(job)}"
        return "" if self._urls(job, video) else "; set WEB_PUBLIC_URL to the address of a service that has it"

    def _from(self, source: _Source, video: VideoFile, part: Incoming) -> None:
        """Receive the missing bytes from a place, and check all of them.

        Raises:
            SoraBatchError, OSError: it does not have them.
        """
        while not part.is_whole(video.sha256):
            resumed = part.resumed
            for piece in source.read(part) if part.bytes < video.bytes else ():
                self._check_stop()
                part.write(piece)
                if part.bytes > video.bytes:
                    break  # it is a different file
            if part.is_whole(video.sha256):
                break
            short = f"ends after {part.bytes} of {video.bytes} bytes" if part.bytes < video.bytes else ""
            part.restart()
            if not resumed:
                text = f"{source.name} {short or 'differs from the recorded file'} (SHA-256 {video.sha256[:16]}...)"
                raise SoraBatchError(text, code=ErrorCode.DOWNLOAD_FAILED)

    def _sources(self, job: Job, video: VideoFile) -> Iterator[_Source]:
        yield _Source(video.uri, lambda part: self._stored(video.uri, part.bytes))
        yield from map(self._over_http, self._urls(job, video))

    def _stored(self, uri: str, start: int) -> Iterator[bytes]:
        if uri.startswith("file:") and not path_of(uri).is_file():  # opening a pipe would wait for its writer
            raise FileNotFoundError(uri)
        return self._stores.read(uri, start)

    def _over_http(self, url: str) -> _Source:
        return _Source(url, lambda part: self._http.read(url, lambda: part.bytes, part.restart))

    def _urls(self, job: Job, video: VideoFile) -> list[str]:
        own = video_url(self._settings.web_public_url, job.id.rpartition("-")[0], job.index)
        return list(dict.fromkeys(filter(None, (video.url, own))))

    def _sleep(self, seconds: float) -> None:
        self._stop.wait(seconds)
        self._check_stop()

    def _check_stop(self) -> None:
        if self._stop.is_set():
            raise _StoppedError("interrupted")


def _reason(source: _Source, error: OSError | SoraBatchError) -> tuple[ErrorCode, str]:
    if isinstance(error, SoraBatchError):
        return error.code, str(error)
    code = ErrorCode.NOT_FOUND if isinstance(error, FileNotFoundError | NotADirectoryError) else ErrorCode.STORAGE
    words: object = error.strerror or error
    if isinstance(error, FileNotFoundError):
        words = "no such file on this machine" if source.name.startswith("file:") else "no such object"
    return code, f"{source.name}: {words}"
