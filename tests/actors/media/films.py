"""Real films for the tests of pictures: the simulator's, each drawn once."""

import functools
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from threading import Event

from actors.batch.job_views import Job, JobError, VideoFile
from actors.batch.views import Batch, Progress
from actors.simulator.films import write_film
from actors.simulator.pictures import Film

NOW = datetime(2026, 11, 1, tzinfo=UTC)


@functools.cache
def film(width=320, height=180):
    """The bytes of a film of a second."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "film.mp4"
        write_film(Film(prompt="A boat", caption="test", width=width, height=height, seconds=1), path, Event())
        return path.read_bytes()


def job(index, prompt="A boat", status="completed", *, error=None, take=1, progress=0):
    video = VideoFile(path=f"/nowhere/{index}.mp4", bytes=1, sha256="0" * 64, content_type="video/mp4")
    return Job(
        id=f"b-{index:02}", index=index, status=status, prompt=prompt, duration=None, model=None, size=None,
        metadata={}, remote_id=None, progress=progress, attempts=1, take=take,
        error=JobError(code=error, message="It could not be made.", retryable=True) if error else None,
        video=video if status == "completed" else None,
        created_at=NOW, updated_at=NOW, started_at=None, completed_at=None,
    )  # fmt: skip


def batch(*jobs, name=None):
    done = sum(each.status == "completed" for each in jobs)
    return Batch(
        id="b", name=name, job_ids=[each.id for each in jobs], jobs=list(jobs), status="processing",
        progress=Progress(
            total=len(jobs), completed=done, failed=0, cancelled=0, processing=0, pending=len(jobs) - done,
            percentage=100 * done // len(jobs),
        ),
        metadata={}, error=None, concurrency=1, created_at=NOW, updated_at=NOW, started_at=None, completed_at=None,
    )  # fmt: skip
