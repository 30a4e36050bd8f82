"""VIDEO_KEEP and HISTORY_KEEP in real services, and a removal that is killed between its record and its end."""

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from actors.cli.serve import Housekeeping
from actors.service import BatchService
from actors.settings import Settings
from actors.simulator import SimulatorOptions
from tests.integration.support import PATIENCE, ROOT, until
from tests.servers.simulator import simulator_in_thread

pytestmark = pytest.mark.integration

DIES = """
import os, pathlib, signal, sys
from datetime import timedelta
from actors.service import BatchService

def unlink(path, missing_ok=False, real=pathlib.Path.unlink, calls=[]):
    calls.append(path)
    if len(calls) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    real(path, missing_ok)

with BatchService() as service:
    pathlib.Path.unlink = unlink
    service.remove_files(timedelta(hours=1))
"""


class World:
    def __init__(self, folder: Path, base_url: str) -> None:
        self.folder = folder
        self.environment = {
            "PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "OPENAI_BASE_URL": base_url,
            "DATABASE_URL": f"sqlite:///{folder}/batches.db", "VIDEO_DIR": str(folder / "videos"),
        }  # fmt: skip

    def service(self) -> BatchService:
        environment = {name.lower(): value for name, value in self.environment.items()}
        return BatchService(Settings(_env_file=None, sora_poll_interval="20", **environment))  # type: ignore[arg-type]

    def make(self, batch_id: str, count: int = 3) -> None:
        with self.service() as service:
            video = {"prompt": "A boat", "seconds": 1, "size": "64x64", "takes": count}
            service.create_batch({"id": batch_id, "videos": [video]})
            service.process_batch(batch_id).result(PATIENCE)

    def age(self, batch_id: str, hours: float) -> None:
        """Have a batch ended earlier than it did."""
        with sqlite3.connect(self.folder / "batches.db") as database:
            past = (hours * 3600, batch_id)
            database.execute("UPDATE batches SET completed_at=completed_at - ? WHERE id=?", past)
            database.execute("UPDATE journal SET created_at=created_at - ? WHERE batch_id=?", past)
        database.close()

    def files(self, batch_id: str) -> list[str]:
        return sorted(path.name for path in (self.folder / "videos" / batch_id).glob("*"))

    def removed(self, batch_id: str) -> list[bool]:
        with self.service() as service:
            videos = [job.video for job in service.get_batch_status(batch_id).jobs]
        assert all((video.path is None) == (video.removed_at is not None) for video in videos if video)
        return [video is not None and video.removed_at is not None for video in videos]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with simulator_in_thread(SimulatorOptions(latency=(0.0, 0.05))) as (_, url):
        yield World(tmp_path, url)


def test_two_services_remove_what_is_old_and_nothing_else(world: World) -> None:
    for batch_id in ("old", "young"):
        world.make(batch_id)
    world.age("old", 3)
    serving = [
        subprocess.Popen(
            [sys.executable, "-m", "actors.cli", "serve"], env=world.environment | {"VIDEO_KEEP": "2h"}, cwd=world.folder,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )
        for _ in range(2)
    ]  # fmt: skip
    try:
        until(lambda: not world.files("old"))
    finally:
        for process in serving:
            process.send_signal(signal.SIGTERM)
        logs = [process.communicate(timeout=PATIENCE)[1] for process in serving]
    assert not [log for log in logs if "could not remove" in log or "Traceback" in log]
    assert (world.removed("old"), world.removed("young")) == ([True] * 3, [False] * 3)
    assert len(world.files("young")) == 3
    with world.service() as service:
        report = service.audit()
        assert (report.jobs_without_file, report.files_without_job) == ([], [])
        assert service.jobs_without_file("old") == []
        fetched = service.fetch("old", world.folder / "films")
        assert {problem.code for problem in fetched.problems} == {"not_found"}
        assert service.history("old")[-1].name == "batch.completed"


def test_a_removal_that_is_killed_is_finished_by_the_next_run(world: World) -> None:
    world.make("old")
    world.age("old", 3)
    (stray := world.folder / "videos" / "old" / "old-09-abcdef01.mp4").write_bytes(b"nobody's")
    killed = subprocess.run([sys.executable, "-c", DIES], env=world.environment, cwd=world.folder, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(world.files("old")) == 3, "one of three went, and the stray stays"
    assert world.removed("old") == [True] * 3, "recorded before the first was removed"
    with world.service() as service:
        assert service.prune(timedelta(hours=2), files=True).files == 2
    assert world.files("old") == [stray.name]


def test_histories_go_after_history_keep_and_files_stay(world: World) -> None:
    world.make("old", 1)
    world.age("old", 3)
    with world.service() as service:
        assert service.remove_files(timedelta(hours=4)) == 0
        settings = service.settings.model_copy(update={"history_keep": timedelta(hours=2)})
    with BatchService(settings) as service, Housekeeping(service):
        until(lambda: not service.history("old"))
        assert service.get_batch_status("old").status == "completed"
    assert len(world.files("old")) == 1


def test_who_deletes_a_batch_without_its_folder_is_told_where_its_files_stay(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.make("there")
    world.make("here", 1)
    here = world.environment["VIDEO_DIR"]
    world.environment["VIDEO_DIR"] = str(world.folder / "another")
    with world.service() as service:
        service.delete_batch("here", keep_files=True)
        assert not caplog.records
        service.delete_batch("there")
    (warning,) = [record for record in caplog.records if record.levelname == "WARNING"]
    text = f"batch there is deleted, but not its 3 files in {here}/there: this process uses another store. "
    assert warning.getMessage().startswith(text + "Run sora-batch delete there again")
    assert len(world.files("there")) == 3
    world.environment["VIDEO_DIR"] = here
    with world.service() as service:
        service.delete_batch("there")
    assert (world.files("there"), len(world.files("here"))) == ([], 1)
