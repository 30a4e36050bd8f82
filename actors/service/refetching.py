"""MissingFiles: finds the completed videos whose file is gone, and downloads them again; for `BatchService`."""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from actors.batch.commands import Retry
from actors.errors import Conflict, ErrorCode, Failure, SoraBatchError, SoraError
from actors.service.running import BatchRunner
from actors.service.waiting import RunningBatch
from actors.stores import told_by_the_store
from storage.states import SubmissionState
from storage.stores import uri_of
from storage.urls import server_of

if TYPE_CHECKING:
    from collections.abc import Collection
    from concurrent.futures import Future
    from typing import Any

    from actors.batch.views import Batch
    from storage.records import JobRecord, SubmissionRecord

logger = logging.getLogger(__name__)
_FAILED = "could not fetch the file of a completed video again; nothing was changed"
_UNWANTED = "its file was removed meanwhile"


class MissingFiles(BatchRunner):
    """Nothing is paid, and no record changes: only the recorded bytes are put back."""

    def jobs_without_file(self, batch_id: str) -> list[str]:
        """The ids of a batch's completed jobs whose file is missing: named in a retry, they are fetched again.

        Raises:
            NotFound: there is no such batch.
        """
        jobs = self.get_batch_status(batch_id).jobs
        return [job.id for job in self._without_file(batch_id, {job.id for job in jobs})]

    def _without_file(self, batch_id: str, job_ids: Collection[str]) -> list[JobRecord]:
        """Those of these jobs that are completed and whose file is not where it was recorded."""
        if not job_ids:
            return []
        jobs = self._read(lambda: self._storage.jobs.by_id(job_ids)).values()
        completed = [job for job in jobs if job.batch_id == batch_id and job.video is not None]
        kept = [job for job in completed if job.video and not job.video.get("removed_at")]
        with told_by_the_store():
            return [job for job in kept if job.video and self.stores.size(uri_of(job.video)) is None]

    def _seek_files(self, command: Retry, prefixes: tuple[str, ...] = ("",)) -> tuple[Retry, list[JobRecord]]:
        """Find the completed jobs whose file is missing, of those that are named or, with `missing`, of all.

        Before the transaction: a bucket may be slow.

        Args:
            command: which jobs.
            prefixes: what the addresses begin with of the files to look for: others may be on another machine.

        Returns:
            The command without these jobs, and these jobs.

        Raises:
            UnknownBatch: there is no such batch, of which all jobs are to be looked at.
            Conflict: all are to be looked at, and no file is missing.
        """
        batch_id, named = command.batch_id, set(command.job_ids or ()) - command.columns.keys()
        if command.missing:
            batch = self.get_batch_status(batch_id)
            named.update(batch.job_ids)
        gone = [job for job in self._without_file(batch_id, named) if uri_of(job.video or {}).startswith(prefixes)]
        if command.missing and not gone:
            raise Conflict(nothing_missing(batch))
        ids = tuple(job.id for job in gone)
        rest = tuple(job_id for job_id in command.job_ids or () if job_id not in ids)
        return replace(command, job_ids=rest or (None if ids else command.job_ids), fetching=ids), gone

    def _seek_files_for_others(self, command: Retry) -> tuple[Retry, list[JobRecord]]:
        """As `_seek_files`, in the stores of this process, and of what its server made.

        Raises:
            UnknownBatch, Conflict: as there, or its server made none of them.
        """
        command, gone = self._seek_files(command, self.stores.prefixes)
        if not gone:
            return command, gone
        there, problems = self._whence(command.batch_id, gone)
        if not there:
            raise Conflict(_told(problems))
        return replace(command, fetching=tuple(there)), gone

    def _whence(self, batch_id: str, jobs: list[JobRecord]) -> tuple[dict[str, SubmissionRecord], dict[str, str]]:
        """By job id: the submission that made its video at this server, or why there is none."""
        made = {entry.job_id: entry for entry in self.submissions(batch_id) if entry.state is SubmissionState.BOUND}
        there, problems, server = {}, {}, server_of(self.provider)
        for job in jobs:
            entry = made.get(job.id)
            if entry is None or entry.remote_id is None:
                problems[job.id] = "no server video is recorded for it"
            elif entry.server != server:
                problems[job.id] = f"its video is on {entry.server}, and this service uses {server}"
            else:
                there[job.id] = entry
        return there, problems

    def _fetch_again(self, batch_id: str, jobs: list[JobRecord], running: RunningBatch | None) -> RunningBatch:
        """Download files again; completes when they are there and the rest of the batch has ended."""
        (there, problems), runtime, answer = self._whence(batch_id, jobs), self._started(), RunningBatch(batch_id)
        answer.left_alone = running.left_alone if running else ()
        fetching = {job.id: runtime.fetch_again(job, there[job.id]) for job in jobs if job.id in there}

        def finish() -> Batch:
            problems.update({job_id: why for job_id, future in fetching.items() if (why := future.result())})
            problems.update(dict.fromkeys(self._clean_unwanted(batch_id, there), _UNWANTED))
            batch = running.result() if running else self.get_batch_status(batch_id)
            if problems:
                raise SoraError(Failure(ErrorCode.DOWNLOAD_FAILED, _told(problems)))
            return batch

        self._waiting.answer_when(answer, finish)
        return answer

    def _clean_unwanted(self, batch_id: str, job_ids: Collection[str]) -> list[str]:
        """Remove files that are back although they were to be removed meanwhile. Returns whose they were.

        After they are put back: whoever records their removal later than this look finds them.
        """
        jobs = self._read(lambda: self._storage.jobs.by_id(job_ids))
        videos = {job_id: job.video or {} for job_id, job in jobs.items()}
        unwanted = [each for each in job_ids if each not in videos or videos[each].get("removed_at")]
        if unwanted:
            self._orphans.clean_soon(batch_id)
        return unwanted

    def _fetch_for_others(self, command: Retry, gone: list[JobRecord]) -> None:
        """Download files again in the background: whoever wants them has had the answer, so the log tells the rest."""
        about = {"action": "fetched_again", "batch_id": command.batch_id, "job_ids": list(command.fetching)}
        try:
            self._fetch_again(command.batch_id, gone, None).add_done_callback(partial(_log, about))
        except SoraBatchError as error:
            _log_failure(about, error)


def nothing_missing(batch: Batch) -> str:
    """Why no file is fetched again."""
    removed = sum(job.video is not None and job.video.removed_at is not None for job in batch.jobs)
    why = f"; {removed} were removed on purpose, by VIDEO_KEEP or prune --files" if removed else ""
    return f"batch {batch.id}: no file of a completed video is missing{why}"


def _told(problems: dict[str, str]) -> str:
    return f"{_FAILED}: {'; '.join(f'{job_id}: {why}' for job_id, why in sorted(problems.items()))}"


def _log(about: dict[str, Any], done: Future[Batch]) -> None:
    error = done.exception()
    if error is None:
        logger.info("downloaded missing files again", extra=about)
    else:
        _log_failure(about, error)


def _log_failure(about: dict[str, Any], error: BaseException) -> None:
    logger.warning("could not download all missing files again", extra={**about, "error": str(error)})
