"""Maintenance: any number of rows goes in small transactions, and what is broken off is gone on with."""

import threading

import pytest

from actors.batch import cleanup, deletion
from actors.batch.cleanup import Maintenance, PruneReport
from actors.batch.start import NewBatch, create
from actors.errors import Conflict, NotFound
from storage.records import ReferenceRecord
from storage.states import BatchStatus, JobStatus, SubmissionState
from storage.storage import Storage
from tests.builders import NOON, a_batch, a_job, an_event, put, some_jobs

LATER = NOON + 60
PATIENCE = 20
TABLES = ("batches", "jobs", "journal", "publications", "input_references", "inbox", "owners")


@pytest.fixture(autouse=True)
def no_pauses(mocker):
    """Nobody else is there who would need them."""
    mocker.patch.object(cleanup.time, "sleep")


class Doors:
    """The service's, for one thread; counts what each transaction removes."""

    def __init__(self, storage):
        self.storage, self.removed, self.broken_off_after = storage, [], None
        self.before_each = []
        """What somebody else does before each transaction, in order."""

    def count(self, table):
        return self.storage.database.execute(f"SELECT count(*) FROM {table}").fetchone()[0]  # noqa: S608

    def read(self, query):
        return query()

    def write(self, run):
        if self.broken_off_after == len(self.removed):
            raise KeyboardInterrupt
        if self.before_each:
            self.before_each.pop(0)()
        before = sum(map(self.count, TABLES))
        with self.storage.database.begin():
            done = run()
        self.removed.append(before - sum(map(self.count, TABLES)))
        return done

    def upkeep(self, told=None, stores=None):
        return Maintenance(self.storage, self.read, self.write, told, stores)

    def delete(self, batch_id):
        """As the service does: the first transaction hides the batch."""
        if not self.write(lambda: deletion.delete(self.storage, batch_id, LATER)):
            self.upkeep().finish_deletion(batch_id)


@pytest.fixture
def doors(storage):
    return Doors(storage)


def fill(storage, batches, events=10, **columns):
    """Ended batches of one video each, with their histories and a submission."""
    database = storage.database
    for number in range(batches):
        put(storage, a_batch(f"b{number}", status="completed", completed_at=NOON, sequence=events, **columns), [])
    storage.jobs.add([a_job(1, f"b{number}", status=JobStatus.COMPLETED) for number in range(batches)])
    storage.journal.append([an_event(each, f"b{n}") for n in range(batches) for each in range(1, events + 1)])
    database.execute(
        "INSERT INTO submissions (id, job_id, batch_id, attempt, digest, provider, sender, intended_at, state, adopted) "
        "SELECT id, id, batch_id, 1, 'd', 'p', 's', 1, 'bound', FALSE FROM jobs"
    )


def test_many_batches_go_in_small_transactions_and_it_is_told_how_many(storage, doors):
    with storage.database.begin():
        fill(storage, 1500)
        put(storage, a_batch("young", status="completed", completed_at=LATER), [])
        put(storage, a_batch("open"), [])
        storage.journal.append([an_event(1, "young"), an_event(1, "open")])
    told = []
    report = doors.upkeep(told.append).prune(NOON + 1, LATER, delete_batches=True)
    assert report == told[-1] == PruneReport(15_000, 1500)
    assert told == sorted(told, key=lambda each: (each.batches, each.events))
    assert len(told) > 20
    assert max(doors.removed) <= 1000
    assert {batch.id for batch in storage.batches.find()} == {"young", "open"}
    # That they were deleted is still to be published; the others' histories stay.
    assert (doors.count("jobs"), doors.count("journal"), doors.count("publications")) == (0, 1502, 1500)
    (states,) = storage.database.execute("SELECT DISTINCT state FROM submissions").fetchall()
    assert states == (SubmissionState.ABANDONED,)
    assert doors.upkeep().prune(LATER + 1e9, LATER, delete_batches=False) == PruneReport(1501, 0)
    assert (doors.count("journal"), doors.count("publications")) == (1, 0)


@pytest.mark.parametrize("after", [0, 1, 3, 5])
def test_what_is_broken_off_leaves_whole_batches_and_is_gone_on_with(storage, doors, after):
    with storage.database.begin():
        fill(storage, 200, events=2)
    doors.broken_off_after = after
    with pytest.raises(KeyboardInterrupt):
        doors.upkeep().prune(NOON + 1, LATER, delete_batches=True)
    left = {batch.id for batch in storage.batches.find(limit=1000)}
    assert len(left) == doors.count("jobs")
    assert all(storage.jobs.of_batch(batch_id) for batch_id in left)
    doors.broken_off_after = None
    doors.upkeep().prune(NOON + 1, LATER, delete_batches=True)
    assert [doors.count(table) for table in ("batches", "jobs", "journal")] == [0, 0, 200]


def test_a_batch_that_is_tried_again_meanwhile_stays(storage, doors):
    with storage.database.begin():
        fill(storage, 3, events=1)
    read = doors.read

    def retried_after(query):
        found = read(query)
        storage.database.execute("UPDATE batches SET epoch=9, completed_at=NULL, status='pending' WHERE id='b1'")
        return found

    doors.read = retried_after
    doors.upkeep().prune(NOON + 1, LATER, delete_batches=True)
    assert [batch.id for batch in storage.batches.find()] == ["b1"]
    assert storage.jobs.of_batch("b1")
    assert len(storage.journal.read("b1")) == 1


def test_pieces_grow_and_shrink_with_the_time_that_they_take(storage, doors, monkeypatch):
    monkeypatch.setattr(cleanup, "_timed", lambda piece: (piece(), 0.01))
    with storage.database.begin():
        fill(storage, 1, events=1500)
    doors.upkeep().prune(NOON + 1, LATER, delete_batches=False)
    assert [each for each in doors.removed if each] == [128, 256, 512, 604]
    monkeypatch.setattr(cleanup, "_timed", lambda piece: (piece(), 0.15))
    with storage.database.begin():
        storage.journal.append([an_event(each, "b0") for each in range(1, 301)])
    doors.removed.clear()
    doors.upkeep().prune(NOON + 1, LATER, delete_batches=False)
    assert [each for each in doors.removed if each] == [128, 64, 32, 16, 16, 16, 16, 12]


# --- one large batch


@pytest.fixture
def large(storage):
    """An ended batch of 3,000 videos."""
    with storage.database.begin():
        put(
            storage,
            a_batch("large", status="failed", failed=3000, total=3000, completed_at=NOON),
            some_jobs(3000, "large"),
        )


def test_a_large_batch_goes_in_pieces_and_at_once_for_whoever_looks(storage, doors, large):
    doors.broken_off_after = 1
    with pytest.raises(KeyboardInterrupt):
        doors.delete("large")
    assert doors.count("jobs") > 2000
    assert storage.batches.get("large") is None
    assert storage.batches.find() == []
    with pytest.raises(Conflict, match="is being deleted; try again"), storage.database.begin():
        create(storage, NewBatch(a_batch("large"), some_jobs(1, "large"), []))
    doors.broken_off_after = None
    doors.delete("large")  # goes on
    assert max(doors.removed) <= 1000
    assert (doors.count("jobs"), doors.count("batches"), doors.count("journal")) == (0, 0, 1)
    with pytest.raises(NotFound):
        doors.delete("large")


def test_the_next_prune_goes_on_with_a_deletion_that_was_broken_off(storage, doors, large):
    doors.broken_off_after = 1
    with pytest.raises(KeyboardInterrupt):
        doors.delete("large")
    doors.broken_off_after = None
    assert doors.upkeep().prune(NOON - 1, LATER, delete_batches=False).batches == 1
    assert (doors.count("jobs"), doors.count("batches")) == (0, 0)


@pytest.mark.parametrize(("after", "broken_off"), [(0, True), (2, False)], ids=["begun before", "in the middle"])
def test_two_prunes_at_once_both_succeed(storage, doors, large, after, broken_off):
    with storage.database.begin():
        fill(storage, 2, events=1)
        if broken_off:
            deletion.delete(storage, "large", LATER, 100)
    other = Doors(storage)
    reports = []

    def meanwhile():
        reports.append(other.upkeep().prune(NOON + 1, LATER, delete_batches=True))

    doors.before_each = [lambda: None] * after + [meanwhile]
    reports.append(doors.upkeep().prune(NOON + 1, LATER, delete_batches=True))
    assert sum(report.batches for report in reports) == 3
    assert (doors.count("jobs"), doors.count("batches")) == (0, 0)


def test_where_a_deleted_batch_had_its_files_is_forgotten_after_a_day(storage, doors):
    with storage.database.begin():
        for batch_id in ("gone", "going"):
            put(storage, a_batch(batch_id, status="failed", completed_at=NOON), [])
            deletion.delete(storage, batch_id, LATER, places=[f"file:///videos/{batch_id}/"])
        deletion.remove_rows(storage, "gone", 10)
    for later, left in ((cleanup.LATE, ["going", "gone"]), (cleanup.LATE + 1, ["going"])):
        doors.upkeep().forget_places(LATER + later - cleanup.LATE)
        assert storage.doomed.batch_ids() == left
    doors.upkeep().prune(NOON, LATER + cleanup.LATE + 1, delete_batches=False)  # which finishes the deletion first
    assert storage.doomed.batch_ids() == []


def test_a_batch_that_is_retried_while_it_is_to_be_pruned_stays(storage, doors, large):
    def retried():
        with storage.database.begin():
            storage.batches.update("large", status="pending", completed_at=None)

    doors.before_each = [retried]
    assert doors.upkeep().prune(NOON + 1, LATER, delete_batches=True).batches == 0
    assert doors.count("batches") == 1


def test_large_and_small_batches_are_pruned_together(storage, doors, large):
    with storage.database.begin():
        fill(storage, 50, events=1)
    assert doors.upkeep().prune(NOON + 1, LATER, delete_batches=True).batches == 51
    assert max(doors.removed) <= 1000
    assert (doors.count("jobs"), doors.count("batches")) == (0, 0)


# --- input references


def reference(digest, size=3):
    return ReferenceRecord(digest=digest, name="a.png", content_type="image/png", data=bytes(size))


def kept(storage):
    return {digest for (digest,) in storage.database.execute("SELECT digest FROM input_references").fetchall()}


def used(digest):
    return {"reference": {"digest": digest}}


def used_as_a_file(digest):
    return {"options": {"files": {"last_frame": {"digest": digest}, "mask": {"file_id": "f"}}}}


def ended(name, digest, use=used, **columns):
    batch = a_batch(name, **{"status": BatchStatus.FAILED, "completed_at": NOON, "sequence": 0} | columns)
    return NewBatch(batch, [a_job(1, name, **use(digest))], [reference(digest)])


@pytest.mark.parametrize("first", [used, used_as_a_file])
@pytest.mark.parametrize("second", [used, used_as_a_file])
def test_a_reference_goes_with_the_last_job_that_uses_it(storage, doors, first, second):
    with storage.database.begin():
        for name, digest, use in (("a", "one", first), ("b", "one", second), ("c", "two", second)):
            create(storage, ended(name, digest, use))
        put(storage, a_batch("d", status="failed", completed_at=NOON), [a_job(1, "d", reference={"file_id": "f"})])
        storage.jobs.keep_reference(reference("nobody's"))
    for name, left in (("a", {"one", "two", "nobody's"}), ("b", {"two", "nobody's"}), ("d", {"two", "nobody's"})):
        digests = storage.jobs.digests_of(name)
        doors.delete(name)
        doors.upkeep().drop_references(digests)
        assert kept(storage) == left
    doors.upkeep().prune(NOON + 1, LATER, delete_batches=True)
    assert kept(storage) == set()


def test_large_references_go_a_few_at_a_time(storage, doors, monkeypatch):
    monkeypatch.setattr(cleanup, "_BYTES", 250)
    for number, size in enumerate((100, 100, 100, 1000, 1)):
        storage.jobs.keep_reference(reference(f"d{number}", size))
    doors.upkeep().drop_references()
    assert doors.removed == [2, 1, 1, 1]


@pytest.fixture
def beside(database):
    """Does something in a transaction of another thread; `(its answer, an event that lets it commit)`."""
    threads = []

    def beside(act, *, held=False):
        answer, done, commit = [], threading.Event(), threading.Event()

        def run():
            with database.connection(), database.begin():
                answer.append(act(Storage(database)))
                done.set()
                commit.wait(PATIENCE)

        threads.append(threading.Thread(target=run))
        threads[-1].start()
        if held:
            assert done.wait(PATIENCE)
        else:
            commit.set()
        return answer, commit, threads[-1]

    yield beside
    for thread in threads:
        thread.join(PATIENCE)


def test_a_reference_that_a_batch_is_just_being_made_with_stays(storage, beside):
    storage.jobs.keep_reference(reference("one"))
    _, commit, creating = beside(lambda own: create(own, ended("a", "one")), held=True)
    dropped, _, dropping = beside(lambda own: own.jobs.drop_references(["one"]))
    commit.set()
    creating.join(PATIENCE)
    dropping.join(PATIENCE)
    assert (dropped, kept(storage)) == ([0], {"one"})


def test_a_reference_that_is_just_being_removed_is_stored_again(storage, beside):
    storage.jobs.keep_reference(reference("one"))
    dropped, commit, dropping = beside(lambda own: own.jobs.drop_references(["one"]), held=True)
    created, _, creating = beside(lambda own: create(own, ended("a", "one")))
    commit.set()
    dropping.join(PATIENCE)
    creating.join(PATIENCE)
    assert (dropped, created, kept(storage)) == ([1], [True], {"one"})


def test_old_commands_go_in_pieces(storage, doors):
    with storage.database.begin():
        for number in range(2500):
            storage.inbox.take("/shop", str(number), "digest", NOON)
        storage.inbox.take("/shop", "young", "digest", LATER)
    assert doors.upkeep().forget_commands(NOON + 1) == 2500
    assert max(doors.removed) <= 1000
    assert doors.count("inbox") == 1
