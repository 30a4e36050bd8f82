"""Money that several processes write at once: two real connections to PostgreSQL, each step in a known order.

Nothing waits for time to pass: a transaction goes on once the other one is done, or blocked by this one's locks.
"""

import threading
from concurrent.futures import ThreadPoolExecutor, wait
from decimal import Decimal

import pytest

from storage.budgets import Key
from storage.changes import Changes
from storage.charges import MICROS, ToldPrice
from storage.database import Database, NotAlone
from storage.recorder import Recorder
from storage.states import BatchStatus, ChargeState, JobStatus, SubmissionState
from storage.storage import Storage
from storage.submissions import Bind
from tests.builders import a_batch, a_job, an_event, an_intent, put

pytestmark = pytest.mark.integration
PRICE, PATIENCE = 400_000, 60
USD = [{"amount": "9", "unit": "USD"}]


class Process:
    """A process with its one writing thread, whose transactions can be held open."""

    def __init__(self, url):
        self.database = Database(url)
        self.storage = Storage(self.database)
        self._thread = ThreadPoolExecutor(1)
        self._thread.submit(self.database.peewee.connect).result(PATIENCE)
        self.pid = self._thread.submit(self.database.execute, "SELECT pg_backend_pid()").result(PATIENCE).fetchone()[0]

    def write(self, *acts, hold=None):
        """Do it all in one transaction, as the recorder does; `hold`: call it before the COMMIT."""

        def transaction(*, alone):
            with self.database.begin(alone=alone):
                values = [act(self.storage) for act in acts]
                if hold is not None:
                    hold()
                return values[-1]

        def run():
            try:
                return transaction(alone=False)
            except NotAlone:
                return transaction(alone=True)

        return self._thread.submit(run)

    def close(self):
        self._thread.submit(self.database.peewee.close).result(PATIENCE)
        self._thread.shutdown()
        self.database.close()


class Held:
    """A transaction that is held open in front of its COMMIT."""

    def __init__(self, process, *acts):
        self._there, self._go_on = threading.Event(), threading.Event()
        self.future = process.write(*acts, hold=self._hold)
        while not self._there.wait(0.01):
            assert not self.future.done(), self.future.exception()

    def _hold(self):
        self._there.set()
        self._go_on.wait(PATIENCE)

    def commit(self):
        self._go_on.set()
        return self.future.result(PATIENCE)


@pytest.fixture(scope="module")
def url(postgresql):
    name = postgresql.create_database()
    database = Database(postgresql.url(name))
    database.open()
    database.close()
    yield postgresql.url(name)
    postgresql.drop_database(name)


@pytest.fixture
def processes(url):
    both = Process(url), Process(url)
    yield both
    for each in both:
        each.close()


@pytest.fixture
def storage(url):
    """To look on, and to begin with nothing."""
    database = Database(url)
    with database.connection():
        for table in ("batches", "jobs", "submissions", "journal", "budgets", "ceilings"):
            database.execute(f"DELETE FROM {table}")  # noqa: S608
        yield Storage(database)
    database.close()


def done_or_blocked(storage, process, future, paused=None):
    """Wait until a transaction is done, blocked by another one's locks, or paused."""
    sql = "SELECT cardinality(pg_blocking_pids(?))"
    while not (future.done() or (paused is not None and paused.is_set())):
        if storage.database.execute(sql, (process.pid,)).fetchone()[0]:
            return


def check(storage):
    """Each budget's `used` is the sum of the charges that count against it."""
    found = storage.ledger.all()
    assert found
    assert {each[:3]: each.used_micros for each in found} == {
        each[:3]: storage.ledger.used(Key(*each[:3])) for each in found
    }
    return found


def an_intent_of(number, currency="USD", batch_id="nature"):
    job = a_job(number, batch_id=batch_id)
    return an_intent(
        f"{batch_id}-{number}", job, currency=currency, reserved_micros=PRICE, charge=ChargeState.RESERVED, seconds=4
    )


def step(batch, *intents):
    """A step of a batch that intends these."""
    after = batch._replace(sequence=batch.sequence + 1)
    jobs = tuple(
        a_job(int(each.id.rpartition("-")[2]), batch_id=batch.id, status=JobStatus.SUBMITTING) for each in intents
    )
    changes = Changes(
        batch=after, epoch=batch.epoch, sequence=batch.sequence, jobs=jobs, intents=intents,
        events=(an_event(after.sequence, batch.id),),
    )  # fmt: skip
    return lambda storage: storage.apply(changes)


def a_running_batch(process, name="nature", **columns):
    batch = a_batch(batch_id=name, total=9, epoch=1, status=BatchStatus.PROCESSING, **columns)
    process.write(lambda storage: put(storage, batch)).result(PATIENCE)
    return batch


def settle(number, state=SubmissionState.REFUSED):
    return lambda storage: storage.submissions.settle(f"nature-{number}", state)


def tell(number, amount="0.1"):
    price = ToldPrice("USD", Decimal(amount))
    return lambda storage: storage.submissions.tell(f"nature-{number}", {"usage.cost": amount}, price)


def set_budget(budget):
    return lambda storage: storage.ledger.set_batch_budget("nature", budget)


def set_ceilings(*units):
    return lambda storage: storage.ledger.set_ceilings({("total", unit): 9 * MICROS for unit in units}, "us")


CHANGES = {
    "release": settle(1),
    "price": tell(1),
    "word": lambda storage: storage.submissions.settle_charge("nature-1", None, "ann"),
    "late answer": lambda storage: storage.submissions.bind("nature-2", "late"),
}
OPENINGS = {
    "a batch's unit": set_budget([*USD, {"amount": "9", "unit": "videos"}]),
    "a batch's first": set_budget(USD),
    "a ceiling": set_ceilings("USD"),
}


@pytest.mark.parametrize("opening", OPENINGS)
@pytest.mark.parametrize("change", CHANGES)
def test_a_budget_that_is_opened_while_a_charge_changes_counts_the_change(storage, processes, change, opening):
    """The change does not see the new row, nor the sum the change: one of the two has to wait."""
    one, other = processes
    batch = a_running_batch(one)
    assert one.write(step(batch, an_intent_of(1), an_intent_of(2))).result(PATIENCE) is True
    one.write(settle(2)).result(PATIENCE)
    changing = Held(one, CHANGES[change])
    future = other.write(OPENINGS[opening])
    done_or_blocked(storage, other, future)
    changing.commit()
    future.result(PATIENCE)
    check(storage)


def test_a_day_that_begins_while_a_charge_changes_counts_the_change(storage, processes):
    one, other = processes
    batch, lake = a_running_batch(one), a_running_batch(one, "lake")
    one.write(step(batch, an_intent_of(1))).result(PATIENCE)
    one.write(lambda storage: storage.ledger.set_ceilings({("day", "USD"): 9 * MICROS}, "us")).result(PATIENCE)
    storage.database.execute("DELETE FROM budgets")  # as on a day on which nobody has reserved anything yet
    for each in processes:
        each.write(lambda storage: storage.ledger.ceilings()).result(PATIENCE)
    releasing = Held(one, settle(1))
    future = other.write(step(lake, an_intent_of(1, batch_id="lake")))
    done_or_blocked(storage, other, future)
    releasing.commit()
    assert future.result(PATIENCE) is True
    (budget,) = check(storage)
    assert budget.used_micros == PRICE


def test_two_that_begin_a_day_both_reserve_in_it(storage, processes):
    """Who is second does not take the other's row, which it has not seen, for one that is full."""
    one, other = processes
    batches = a_running_batch(one), a_running_batch(one, "lake")
    one.write(lambda storage: storage.ledger.set_ceilings({("day", "USD"): 9 * MICROS}, "us")).result(PATIENCE)
    storage.database.execute("DELETE FROM budgets")
    for each in processes:
        each.write(lambda storage: storage.ledger.ceilings()).result(PATIENCE)
    first = Held(one, step(batches[0], an_intent_of(1)))
    second = other.write(step(batches[1], an_intent_of(1, batch_id="lake")))
    done_or_blocked(storage, other, second)
    assert first.commit() is True
    assert second.result(PATIENCE) is True
    (budget,) = check(storage)
    assert budget.used_micros == 2 * PRICE


@pytest.mark.parametrize("first", ["release", "price", "word"])
@pytest.mark.parametrize("second", ["release", "price", "word", "late answer"])
def test_two_changes_of_one_charge_are_counted_one_after_the_other(storage, processes, first, second):
    one, other = processes
    batch = a_running_batch(one, budget=USD)
    one.write(set_budget(USD)).result(PATIENCE)
    one.write(step(batch, an_intent_of(1), an_intent_of(2))).result(PATIENCE)
    acts = CHANGES | {"late answer": lambda storage: storage.submissions.bind("nature-1", "late")}
    changing = Held(one, acts[first])
    future = other.write(acts[second])
    done_or_blocked(storage, other, future)
    changing.commit()
    assert future.result(PATIENCE) in (None, Bind.BOUND, Bind.RESOLVED, *storage.submissions.of_batch("nature"))
    check(storage)


class Pausing:
    """Lets a process stop once it has locked its first budget, until it is told to go on."""

    def __init__(self, process, mocker):
        self.there, self.go_on = threading.Event(), threading.Event()
        execute = process.database.execute

        def watched(sql, parameters=()):
            cursor = execute(sql, parameters)
            if sql.startswith("UPDATE budgets") and cursor.rowcount == 1 and not self.there.is_set():
                self.there.set()
                self.go_on.wait(PATIENCE)
            return cursor

        mocker.patch.object(process.database, "execute", watched)


def cross(storage, processes, mocker, *transactions):
    """Run two transactions, the second one beginning when the first has locked a budget. What they answer."""
    one, other = processes
    first, second = Pausing(one, mocker), Pausing(other, mocker)
    futures = [one.write(*transactions[0])]
    assert first.there.wait(PATIENCE)
    futures.append(other.write(*transactions[1]))
    done_or_blocked(storage, other, futures[1], second.there)
    first.go_on.set()
    if second.there.is_set():
        done_or_blocked(storage, one, futures[0])
    second.go_on.set()
    wait(futures, PATIENCE)
    check(storage)
    return [future.result() for future in futures]


@pytest.fixture
def two_currencies(storage, processes):
    one, _ = processes
    batches = a_running_batch(one), a_running_batch(one, "lake")
    one.write(set_ceilings("USD", "EUR")).result(PATIENCE)
    for each in processes:
        each.write(lambda storage: storage.ledger.ceilings()).result(PATIENCE)
    return batches


def test_steps_in_several_currencies_do_not_wait_for_each_other(storage, processes, two_currencies, mocker):
    nature, lake = two_currencies
    steps = (
        [step(nature, an_intent_of(1, "USD"), an_intent_of(2, "EUR"))],
        [step(lake, an_intent_of(1, "EUR", "lake"), an_intent_of(2, "USD", "lake"))],
    )
    assert cross(storage, processes, mocker, *steps) == [True, True]


def test_groups_that_release_settle_and_reserve_do_not_wait_for_each_other(storage, processes, two_currencies, mocker):
    """The recorder commits together what arrives together, in whatever order."""
    nature, lake = two_currencies
    numbers = {1: "USD", 2: "EUR", 3: "USD", 4: "EUR"}
    processes[0].write(step(nature, *(an_intent_of(*each) for each in numbers.items()))).result(PATIENCE)
    groups = (
        [settle(1), lambda storage: storage.submissions.settle_charge("nature-2", None, "ann")],
        [settle(4), tell(3), step(lake, an_intent_of(1, "USD", "lake"))],
    )
    assert cross(storage, processes, mocker, *groups)[1] is True


def test_a_budget_that_is_raised_does_not_wait_for_the_step_that_waits_for_it(storage, processes, mocker):
    """A step reserves, and then writes to its batch; an update of the budget reads the batch, and then writes to it."""
    one, other = processes
    batch = a_running_batch(one, budget=USD)
    one.write(set_budget(USD)).result(PATIENCE)

    def update(storage):
        storage.database.be_alone()
        assert storage.batches.locked("nature")
        storage.ledger.set_batch_budget("nature", [{"amount": "8", "unit": "USD"}])

    first = Pausing(one, mocker)
    reserving = one.write(step(batch, an_intent_of(1)))
    assert first.there.wait(PATIENCE)
    updating = other.write(update)
    done_or_blocked(storage, other, updating)
    first.go_on.set()
    assert reserving.result(PATIENCE) is True
    updating.result(PATIENCE)
    (budget,) = check(storage)
    assert (budget.ceiling_micros, budget.used_micros) == (8 * MICROS, PRICE)


def test_the_recorder_runs_alone_what_has_to_be(storage, url):
    """And what arrived together with it is committed all the same."""
    database = Database(url)
    recorder, mine = Recorder(database), Storage(database)
    gate = threading.Event()
    waiting = recorder.read(lambda: gate.wait(PATIENCE))
    batch = a_batch(total=9, epoch=1)
    answers = [
        recorder.write(lambda: put(mine, batch)),
        recorder.write(lambda: mine.ledger.set_ceilings({("total", "USD"): MICROS}, "us")),
        recorder.write(mine.ledger.ceilings),
    ]
    gate.set()
    assert waiting.result(PATIENCE)
    assert [len(answer.result(PATIENCE)) for answer in answers] == [len(batch), 1, 1]
    recorder.close()
    database.close()
