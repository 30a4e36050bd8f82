"""Files of a batch that no job records, and their removal."""

from __future__ import annotations

import logging
from concurrent.futures import Future
from pathlib import Path

from storage.changes import Storage
from storage.recorder import Recorder
from storage.states import FINAL_BATCH
from storage.videos import VideoFolder

logger = logging.getLogger(__name__)


def delete_orphan_files(storage: Storage, folder: VideoFolder, batch_id: str) -> None:
    """Remove the files of an ended batch that no job records: unfinished ones, and those that came too late.

    For whoever cancelled it, lost it, ended it after another owner, or noted its owner's death. It is locked meanwhile:
    a retry begins later. In a transaction of its own: an end that is not committed yet may still come to nothing, and a
    removed file does not come back.
    """
    if not folder.batch(batch_id).is_dir():
        return
    with storage.database.begin():
        batch = storage.batches.locked(batch_id)
        if batch is not None and batch.status in FINAL_BATCH:
            made = {entry.job_id for entry in storage.submissions.of_batch(batch_id) if entry.remote_id is not None}
            jobs = storage.jobs.by_id(made).values()  # of another one no file can have come
            kept = {Path(job.video["path"]).name for job in jobs if job.video is not None}
            folder.clear(batch_id, {job.id for job in jobs}, kept)


def delete_orphan_files_soon(recorder: Recorder, storage: Storage, folder: VideoFolder, batch_id: str) -> None:
    """Have them removed in the background, by the recorder's thread; nobody waits for it."""

    def told(done: Future[None]) -> None:
        error = done.exception()
        if error is not None:
            text = storage.database.describe(error)
            logger.warning("a batch's orphan files were not removed", extra={"batch_id": batch_id, "error": text})

    recorder.read(lambda: delete_orphan_files(storage, folder, batch_id)).add_done_callback(told)
