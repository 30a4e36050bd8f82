"""Files of batches that ended long ago are removed: recorded first, in pieces, and nothing else."""

import hashlib

import pytest

from actors.batch import cleanup
from actors.batch.cleanup import Maintenance
from actors.batch.job_views import Job
from actors.batch.retention import FileRemoval
from storage.states import JobStatus
from storage.stores import Stores, path_of, uri_of
from tests.builders import NOON, a_batch, a_job, put

LATER = NOON + 60


@pytest.fixture(autouse=True)
def no_pauses(mocker):
    """Nobody else is there who would need them."""
    mocker.patch.object(cleanup.time, "sleep")


@pytest.fixture
def stores(tmp_path):
    return Stores(str(tmp_path / "videos"))


class World:
    """Batches with files, and the doors of a service for one thread."""

    def __init__(self, storage, stores):
        self.storage, self.stores, self.writes, self.before_each = storage, stores, [], []

    def fill(self, batch_id, count, *, completed_at=NOON, root=None):
        jobs = []
        for position in range(1, count + 1):
            job = a_job(position, batch_id, status=JobStatus.COMPLETED)
            path = (root or self.stores.folder.root) / batch_id / f"{job.id}-abcdef01.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(job.id.encode())
            digest = hashlib.sha256(job.id.encode()).hexdigest()
            video = {"uri": path.as_uri(), "path": str(path), "bytes": len(job.id), "sha256": digest}
            jobs.append(job._replace(video={**video, "content_type": "video/mp4"}))
        with self.storage.database.begin():
            status = "completed" if completed_at else "processing"
            put(self.storage, a_batch(batch_id, status=status, completed_at=completed_at, total=count), [])
            self.storage.jobs.add(jobs)

    def read(self, query):
        return self.storage.database.read(query)

    def write(self, run):
        if self.before_each:
            self.before_each.pop(0)()
        with self.storage.database.begin():
            done = run()
        self.writes.append(done)
        return done

    def remove(self, before=NOON + 1):
        removal = FileRemoval(self.storage, self.stores, self.read, before, LATER)
        return Maintenance(self.storage, self.read, self.write).remove_files(removal)

    def videos(self, batch_id):
        return [job.video for job in self.read(lambda: self.storage.jobs.of_batch(batch_id))]

    def files(self):
        return sorted(path.name for path in self.stores.folder.root.rglob("*") if path.is_file())


@pytest.fixture
def world(storage, stores):
    return World(storage, stores)


def test_what_ended_long_ago_has_no_files_and_everything_else_stays(world):
    world.fill("old", 3)
    world.fill("young", 1, completed_at=NOON + 5)
    world.fill("open", 1, completed_at=None)
    (world.stores.folder.root / "old" / "notes.txt").write_text("mine")
    (world.stores.folder.root / "stray").mkdir()
    (world.stores.folder.root / "stray" / "old-01-abcdef01.mp4").write_text("another's")
    assert world.remove() == 3
    assert world.files() == [
        "notes.txt", "old-01-abcdef01.mp4", "open-01-abcdef01.mp4", "young-01-abcdef01.mp4",
    ]  # fmt: skip
    assert {video["removed_at"] for video in world.videos("old")} == {LATER}
    assert [video.get("removed_at") for each in ("young", "open") for video in world.videos(each)] == [None, None]
    shown = [Job.of(job).video for job in world.read(lambda: world.storage.jobs.of_batch("old"))]
    assert {(video.path, video.url, video.removed_at.timestamp()) for video in shown} == {(None, None, LATER)}
    assert (world.remove(), world.remove(before=NOON + 10)) == (0, 1)


def test_an_empty_folder_goes_too(world):
    world.fill("old", 2)
    world.remove()
    assert list(world.stores.folder.root.iterdir()) == []


def test_many_files_go_in_pieces_each_recorded_before_it_is_removed(world):
    world.fill("large", 700)
    for number in range(12):
        world.fill(f"small{number}", 3, completed_at=NOON - number)
    seen = []

    def look():
        there = sum(path.is_file() for path in world.stores.folder.root.rglob("*"))
        counted = "SELECT count(*) FROM jobs WHERE CAST(video AS TEXT) LIKE ?"
        recorded = world.storage.database.execute(counted, ("%removed_at%",))
        seen.append((there, recorded.fetchone()[0]))

    def watched():
        world.read(look)
        world.before_each.append(watched)

    world.before_each.append(watched)
    assert world.remove() == 736
    assert max(gone for gone, _ in world.writes) <= cleanup.MOST_ROWS
    assert len(world.writes) > 6
    assert all(there + recorded >= 736 for there, recorded in seen), "a file goes after its record"
    assert world.files() == []
    world.writes.clear()
    assert world.remove() == 0
    assert world.writes == [], "what is done is not looked at again"


def test_a_run_that_is_broken_off_is_finished_by_the_next(world):
    world.fill("old", 3)

    def dies():
        raise KeyboardInterrupt

    world.before_each = [lambda: None, dies]
    with pytest.raises(KeyboardInterrupt):
        world.remove()
    assert all(video["removed_at"] == LATER for video in world.videos("old"))
    assert len(world.files()) == 3
    assert world.remove() == 3
    assert world.files() == []


def test_two_at_once_remove_everything_once(world):
    for number in range(5):
        world.fill(f"old{number}", 20, completed_at=NOON - number)
    other, counts = World(world.storage, world.stores), []
    for turn in range(3):
        world.before_each.append((lambda: counts.append(other.remove())) if turn == 1 else lambda: None)
    counts.append(world.remove())
    assert world.files() == []
    assert sum(counts) == 100
    assert all(video["removed_at"] for number in range(5) for video in world.videos(f"old{number}"))


def test_a_batch_that_goes_on_meanwhile_keeps_its_files(world):
    world.fill("old", 3)

    def retried():
        with world.storage.database.begin():
            world.storage.database.execute("UPDATE batches SET epoch=epoch+1, completed_at=NULL WHERE id='old'")

    world.before_each = [retried]
    assert world.remove() == 0
    assert len(world.files()) == 3
    assert not any(video.get("removed_at") for video in world.videos("old"))


def test_a_file_of_another_machine_is_left_to_it(world, tmp_path):
    world.fill("elsewhere", 1, root=tmp_path / "theirs")
    world.fill("gone", 1)
    path_of(uri_of(world.videos("gone")[0])).unlink()
    assert world.remove() == 0
    assert (tmp_path / "theirs" / "elsewhere").is_dir()
    assert not any(video.get("removed_at") for each in ("elsewhere", "gone") for video in world.videos(each))
