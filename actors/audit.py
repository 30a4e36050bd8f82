"""Compares the records with the server's listing and the files in the store. Reports; a person decides.

Changes nothing, and requests only the server's listing.
"""

from __future__ import annotations

import errno
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

from actors.audit_report import (
    AuditReport,
    FlaggedPrice,
    ListedPrice,
    MissingFile,
    MissingVideo,
    OwedDelete,
    SurplusVideo,
    UnknownVideo,
)
from actors.batch.batch_update import price_in
from actors.batch.job_views import moment
from actors.errors import SoraError
from actors.loop import IOLoop
from actors.settings import Settings
from actors.settings.server import SIMULATOR
from actors.sora.client import SoraClient
from actors.sora.listing import pages
from actors.sora.rate_limiter import RateLimiter
from actors.sora.wire import RemoteVideo, inner_id
from actors.stores import stores_of
from storage.charges import MICROS
from storage.deletes import Owed
from storage.records import JobRecord, SubmissionRecord
from storage.states import FINAL_BATCH, UNRESOLVED, JobStatus, SubmissionState
from storage.storage import Storage
from storage.stores import Stores, uri_of

T = TypeVar("T")
_PAGES = 1000
_MAY_HAVE_MADE = frozenset({*UNRESOLVED, SubmissionState.ABSENT, SubmissionState.ABANDONED})
_WANTS_ITS_VIDEO = frozenset({JobStatus.GENERATING, JobStatus.DOWNLOADING, JobStatus.FAILED})


class Read(Protocol):
    """Runs a function with a connection to the database."""

    def __call__(self, run: Callable[[], T], /) -> T:
        """Return what the function returns."""


def audit(settings: Settings, storage: Storage, read: Read, *, checksums: bool) -> AuditReport:
    """Compare records, server and files.

    Args:
        settings: which server, which folder.
        storage: what is recorded.
        read: runs a query on the database.
        checksums: also read every file and check its checksum.

    Raises:
        StorageError: the database failed.
        OSError: the store can't be listed.
    """
    # List first: the records read afterwards include every listed video that is ours.
    videos, problem = _listed(settings)
    server = settings.server or ""
    submissions = read(lambda: storage.submissions.at_server(server))
    jobs = read(lambda: storage.jobs.by_id({each.job_id for each in submissions}))
    # A LiteLLM proxy lists ids other than those it returned.
    known = {inner_id(each.remote_id) for each in submissions if each.remote_id is not None}
    listed = {inner_id(video.id) for video in videos if video.id is not None}
    stores = stores_of(settings)
    unknown = [video for video in videos if inner_id(str(video.id)) not in known]
    paths, missing_files = _files(stores, storage, read, checksums=checksums)
    return AuditReport(
        videos_listed=len(videos),
        files_compared=len(paths),
        listing_problem=problem,
        unknown_videos=[_unknown(video, submissions, jobs) for video in unknown],
        unknown_cost=_sums(unknown),
        surplus_videos=[
            SurplusVideo(remote_id=each.remote_id, job_id=each.job_id, listed=inner_id(each.remote_id) in listed)
            for each in submissions
            if each.state is SubmissionState.SURPLUS and each.remote_id is not None
        ],
        missing_videos=list(_missing(submissions, jobs, listed)) if problem is None else [],
        owed_deletes=[_owed(each) for each in read(storage.deletes.outstanding) if not _simulated(each)],
        flagged_prices=[
            FlaggedPrice(job_id=each.job_id, submission_id=each.id, doubt=each.doubt)
            for each in submissions
            if each.doubt is not None
        ],
        jobs_without_file=missing_files,
        files_without_job=[
            *map(str, _strays(stores.folder.root, paths, storage, read)),
            *_stray_objects(stores, paths, storage, read),
        ],
    )


def _listed(settings: Settings) -> tuple[list[RemoteVideo], str | None]:
    """All videos of the server, each once, and why some may be missing."""
    if settings.openai_base_url is None:
        return [], "OPENAI_BASE_URL is not set, so no server was queried"
    io = IOLoop("sora-audit")
    try:
        return io.submit(_list(settings, settings.openai_base_url)).result()
    finally:
        io.close()


async def _list(settings: Settings, base_url: str) -> tuple[list[RemoteVideo], str | None]:
    found: dict[str, RemoteVideo] = {}
    async with SoraClient(settings, base_url, RateLimiter(settings.sora_max_requests_per_second)) as client:
        try:
            async for page in pages(client.list_page, _PAGES, guess=True):
                new = {video.id: video for video in page.videos if video.id is not None and video.id not in found}
                found |= new
                if page.has_more is False or not page.videos:
                    return list(found.values()), None
                if not new:  # no paging: `after` shows the same page again
                    why = f"the listing has no pages, so these {len(found)} videos may not be all"
                    return list(found.values()), why
        except SoraError as error:
            return list(found.values()), str(error)
    return list(found.values()), f"only the newest {len(found)} videos were compared"


def _unknown(video: RemoteVideo, submissions: list[SubmissionRecord], jobs: dict[str, JobRecord]) -> UnknownVideo:
    candidates = {
        each.job_id
        for each in submissions
        if each.state in _MAY_HAVE_MADE and each.job_id in jobs and jobs[each.job_id].prompt == video.prompt
    }
    age = None if video.created_at is None else max(0, int(time.time() - video.created_at))
    return UnknownVideo(
        remote_id=str(video.id), status=video.status, prompt=video.prompt, created_at=moment(video.created_at),
        age_seconds=age, may_be_of=sorted(candidates), price=next(iter(_sums([video])), None),
    )  # fmt: skip


def _sums(videos: list[RemoteVideo]) -> list[ListedPrice]:
    """What the listing says that these cost, as far as it tells a price that can be one."""
    prices = [price for video in videos if (price := price_in(video.told or {})) is not None and price.believable]
    return [
        ListedPrice(
            currency=currency, micros=round(sum(each.amount for each in prices if each.currency == currency) * MICROS)
        )
        for currency in sorted({price.currency for price in prices})
    ]


def _missing(
    submissions: list[SubmissionRecord], jobs: dict[str, JobRecord], listed: set[str]
) -> Iterator[MissingVideo]:
    for each in submissions:
        job = jobs.get(each.job_id)
        if each.state is not SubmissionState.BOUND or job is None or each.remote_id is None:
            continue
        if inner_id(each.remote_id) not in listed and job.status in _WANTS_ITS_VIDEO:
            yield MissingVideo(job_id=job.id, remote_id=each.remote_id, status=job.status)


def _simulated(owed: Owed) -> bool:
    return owed.submission.provider == SIMULATOR


def _owed(owed: Owed) -> OwedDelete:
    delete, submission = owed
    owed_at = moment(delete.owed_at)
    assert owed_at is not None
    return OwedDelete(
        job_id=submission.job_id, remote_id=str(submission.remote_id), server=str(submission.server),
        state=delete.state, owed_at=owed_at, answer=delete.answer,
    )  # fmt: skip


def _files(stores: Stores, storage: Storage, read: Read, *, checksums: bool) -> tuple[set[str], list[MissingFile]]:
    """The addresses of all completed jobs' files, and their problems."""
    uris: set[str] = set()
    wrong: list[MissingFile] = []
    after = ""
    while page := read(partial(storage.jobs.with_files, after)):
        for job in page:
            assert job.video is not None
            uri = uri_of(job.video)
            uris.add(uri)
            problem = None if job.video.get("removed_at") else _wrong(stores, uri, job.video, checksums=checksums)
            if problem:
                wrong.append(MissingFile(job_id=job.id, path=job.video.get("path") or uri, problem=problem))
        after = page[-1].id
    return uris, wrong


def _wrong(stores: Stores, uri: str, video: dict[str, object], *, checksums: bool) -> str | None:
    try:
        size = stores.size(uri)
        if size is None:
            return os.strerror(errno.ENOENT) if uri.startswith("file:") else "no such object"
        if size != video["bytes"]:
            return f"it has {size} bytes; {video['bytes']} were recorded"
        if checksums and _digest(stores, uri) != video["sha256"]:
            return "its SHA-256 differs from the recorded one"
    except OSError as error:
        return str(error.strerror or error)
    return None


def _digest(stores: Stores, uri: str) -> str:
    digest = hashlib.sha256()
    for piece in stores.read(uri):
        digest.update(piece)
    return digest.hexdigest()


def _strays(root: Path, known: set[str], storage: Storage, read: Read) -> Iterator[Path]:
    """Files below a folder that belong to no job, except those of running batches, which may be incomplete."""
    for folder in sorted(root.iterdir()) if root.is_dir() else ():
        if folder.name.startswith(".") or not folder.is_dir():
            continue
        strays = [path for path in folder.rglob("*") if path.is_file() and path.as_uri() not in known]
        if strays and not _runs(folder.name, storage, read):
            yield from strays


def _stray_objects(stores: Stores, known: set[str], storage: Storage, read: Read) -> Iterator[str]:
    """The same of a bucket. One that can't be listed is named by the files that can't be found in it."""
    bucket = stores.bucket
    for batch_id in bucket.batch_ids() if bucket is not None else ():
        assert bucket is not None
        strays = [uri for uri in bucket.uris(batch_id) if uri not in known]
        if strays and not _runs(batch_id, storage, read):
            yield from strays


def _runs(batch_id: str, storage: Storage, read: Read) -> bool:
    batch = read(partial(storage.batches.get, batch_id))
    return batch is not None and batch.status not in FINAL_BATCH
