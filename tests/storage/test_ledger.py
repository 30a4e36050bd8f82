"""What submissions cost, and the budgets that hold: on both databases, statement by statement."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from storage.budgets import Key, Refusal
from storage.changes import Changes, SubmissionOutcome
from storage.charges import MICROS, ToldPrice, amounts_of, cost_of, exact, part_of
from storage.database import NotAlone
from storage.ledger import CeilingsChanged
from storage.states import BatchStatus, ChargeState, JobStatus, SubmissionState
from storage.storage import Storage
from storage.submissions import Bind
from tests.builders import NOON, a_batch, a_job, an_event, an_intent, put

BUDGET = [{"amount": "2.1", "unit": "USD"}]
PRICE = 400_000


def in_a_transaction(database, act):
    """As the recorder runs it."""
    try:
        with database.begin():
            return act()
    except NotAlone:
        with database.begin(alone=True):
            return act()


@pytest.fixture
def do(storage):
    def do(act, *arguments, **more):
        return in_a_transaction(storage.database, lambda: act(*arguments, **more))

    return do


@pytest.fixture
def batch(storage, do):
    batch = a_batch(total=9, epoch=1, status=BatchStatus.PROCESSING, budget=BUDGET)
    do(put, storage, batch)
    do(storage.ledger.set_batch_budget, "nature", BUDGET)
    return batch


def priced(number, **columns):
    given = {"currency": "USD", "reserved_micros": PRICE, "charge": ChargeState.RESERVED, "seconds": 4} | columns
    return an_intent(f"intent-{number}", a_job(number), **given)


def a_step(batch, *numbers, events=1, **more):
    after = batch._replace(sequence=batch.sequence + events)
    told = tuple(an_event(batch.sequence + number) for number in range(1, events + 1))
    jobs = tuple(a_job(number, status=JobStatus.SUBMITTING) for number in numbers)
    intents = tuple(priced(number) for number in numbers)
    return Changes(
        **{"batch": after, "epoch": 1, "sequence": batch.sequence, "events": told, "jobs": jobs, "intents": intents}
        | more
    )


def used(storage, unit="USD"):
    """What the batch's budget says; it is the sum of the charges, whatever happened."""
    found = {each.unit: each.used_micros for each in storage.database.read(lambda: storage.ledger.of_batch("nature"))}
    counted = [amounts_of(each).get(unit, 0) for each in storage.submissions.of_batch("nature")]
    assert found[unit] == sum(counted) == storage.ledger.used(Key("batch", "nature", unit))
    return found[unit]


def charge(storage, number=1):
    return storage.submissions.get(f"intent-{number}").charge


def test_a_step_reserves_what_its_intents_cost(storage, do, batch):
    assert do(storage.apply, a_step(batch, 1, 2, 3)) is True
    assert used(storage) == 3 * PRICE
    row = storage.submissions.get("intent-1")
    assert (row.charge, row.reserved_micros, row.currency) == (ChargeState.RESERVED, PRICE, "USD")
    assert row.day == datetime.fromtimestamp(row.intended_at, UTC).date().isoformat()


def test_at_the_first_refusal_nothing_of_the_step_is_written(storage, do, batch):
    refusal = do(storage.apply, a_step(batch, 1, 2, 3, 4, 5, 6, 7))
    assert isinstance(refusal, Refusal)
    assert (refusal.index, refusal.amount_micros, refusal.budget.unit) == (5, PRICE, "USD")
    assert used(storage) == 0
    assert storage.batches.get("nature") == batch
    assert storage.submissions.of_batch("nature") == []
    assert storage.journal.read("nature") == []


def test_a_ceiling_is_reached_to_the_last_millionth_and_not_exceeded(storage, do, batch):
    do(storage.ledger.set_batch_budget, "nature", [{"amount": "0.8", "unit": "USD"}])
    batch = batch._replace(budget=[{"amount": "0.8", "unit": "USD"}])
    assert do(storage.apply, a_step(batch, 1, 2)) is True
    assert used(storage) == 800_000
    dear = priced(3, reserved_micros=1)
    refusal = do(storage.apply, a_step(batch._replace(sequence=2), intents=(dear,)))
    assert (refusal.index, used(storage)) == (0, 800_000)


@pytest.mark.parametrize("events", [0, 1], ids=["the fence can't tell", "the fence tells"])
@pytest.mark.parametrize("count", [1, 5], ids=["with room for more", "the last that fits"])
def test_a_step_whose_commit_was_not_answered_reserves_once(storage, do, batch, events, count):
    step = a_step(batch, *range(1, count + 1), events=events)
    assert [do(storage.apply, step) for _ in range(3)] == [True] * 3
    assert used(storage) == count * PRICE


def test_who_lost_the_batch_reserves_nothing(storage, do, batch):
    assert do(storage.apply, a_step(batch, 1, epoch=7)) is False
    assert used(storage) == 0


def test_all_budgets_hold_together(storage, do, batch):
    several = [*BUDGET, {"amount": "10", "unit": "seconds"}, {"amount": "9", "unit": "videos"}]
    do(storage.ledger.set_batch_budget, "nature", several)
    batch = batch._replace(budget=several)
    refusal = do(storage.apply, a_step(batch, 1, 2, 3))
    assert (refusal.index, refusal.budget.unit) == (2, "seconds")
    assert do(storage.apply, a_step(batch, 1, 2)) is True
    assert [used(storage, unit) for unit in ("USD", "seconds", "videos")] == [2 * PRICE, 8 * MICROS, 2 * MICROS]


@pytest.mark.parametrize(
    ("columns", "unit"),
    [
        ({"currency": None, "reserved_micros": None}, "USD"),
        ({"currency": "EUR"}, "USD"),
        ({"seconds": None}, "seconds"),
    ],
    ids=["no price", "another currency", "no duration"],
)
def test_what_has_no_amount_in_a_budgets_unit_is_refused(storage, do, batch, columns, unit):
    budget = [*BUDGET, {"amount": "10", "unit": "seconds"}]
    step = a_step(batch._replace(budget=budget), intents=(priced(1, **columns),))
    refusal = do(storage.apply, step)
    assert (refusal.amount_micros, refusal.budget.unit, refusal.budget.used_micros) == (None, unit, 0)


@pytest.mark.parametrize("state", [SubmissionState.NOT_SENT, SubmissionState.REFUSED, SubmissionState.ABSENT])
def test_what_made_nothing_is_released_once(storage, do, batch, state):
    do(storage.apply, a_step(batch, 1, 2))
    for _ in range(2):
        do(storage.submissions.settle, "intent-1", state)
    assert (charge(storage), used(storage)) == (ChargeState.RELEASED, PRICE)
    assert do(storage.submissions.bind, "intent-1", "late") is Bind.RESOLVED  # it was made after all
    assert (charge(storage), used(storage)) == (ChargeState.ASSUMED, 2 * PRICE)


def test_an_unknown_outcome_stays_reserved_and_an_abandoned_one_too(storage, do, batch):
    do(storage.apply, a_step(batch, 1, 2, 3))
    do(storage.submissions.unanswered, "intent-1", "no answer", timed_out=False)
    do(storage.submissions.give_up, "intent-1", "--pay-again")
    do(storage.submissions.abandon, "nature", ["nature-02"])
    assert [charge(storage, number) for number in (1, 2, 3)] == [ChargeState.RESERVED] * 3
    assert used(storage) == 3 * PRICE
    assert do(storage.submissions.bind, "intent-1", "late") is Bind.RESOLVED
    assert (charge(storage), used(storage)) == (ChargeState.ASSUMED, 3 * PRICE)


@pytest.mark.parametrize("resolved", [True, False], ids=["resolved", "of unknown outcome"])
def test_a_late_answer_does_not_override_a_persons_word_but_is_flagged(storage, do, batch, resolved):
    do(storage.apply, a_step(batch, 1))
    if resolved:
        do(storage.submissions.settle, "intent-1", SubmissionState.ABSENT)
    do(storage.submissions.settle_charge, "intent-1", None, "ann")
    do(storage.submissions.bind, "intent-1", "late")
    row = storage.submissions.get("intent-1")
    assert (row.charge, row.settled_by, used(storage)) == (ChargeState.RELEASED, "ann", 0)
    assert row.doubt == "settled as released, but the server made a video"
    do(storage.submissions.settle_charge, "intent-1", ToldPrice("USD", Decimal("0.3")), "ann")
    assert (used(storage), storage.submissions.get("intent-1").doubt) == (300_000, None)


def test_what_the_version_before_recorded_is_reported_as_it_is_counted(storage, do):
    do(put, storage, a_batch(total=9))
    of_before = {"charge": None, "day": None, "model": None, "seconds": None}
    intents = [priced(1, **of_before), priced(2, **of_before), priced(3, **of_before), priced(4, day="2026-11-30")]
    do(storage.submissions.intend, intents)
    do(storage.submissions.bind, "intent-2", "video_2")
    do(storage.submissions.settle, "intent-3", SubmissionState.REFUSED)
    assumed, reserved = (
        cost_of(map(part_of, [priced(2, charge=ChargeState.ASSUMED)])),
        cost_of(map(part_of, [priced(1), priced(4)])),
    )
    whole = reserved[0] | {"estimated_micros": 3 * PRICE, "assumed_micros": assumed[0]["assumed_micros"]}
    for group in (None, "day", "model", "batch", "metadata.team", "metadata.a 'b"):
        for since in (None, NOON - 1):
            parts = storage.database.read(lambda group=group, since=since: list(storage.costs.by(group, since)))
            assert cost_of(part for _, part in parts) == [whole]
            assert group != "day" or None not in {key for key, _ in parts}
    batch = storage.batches.get("nature")
    assert storage.database.read(lambda: storage.costs.of_batch(batch)).whole == [whole]


def test_costs_are_told_by_a_jobs_metadata_or_else_its_batches_and_by_whole_days(storage, do):
    odd = 'a "b'
    batch = a_batch(total=2, metadata={"team": "sea", odd: 7})
    do(put, storage, batch, [a_job(1, metadata={"team": "lake"}), a_job(2)])
    day = datetime.fromtimestamp(NOON, UTC).date()
    do(storage.submissions.intend, [priced(1, day=day.isoformat()), priced(2, charge=None, day=None)])
    storage.database.execute("UPDATE submissions SET intended_at=?", (NOON,))
    midnight = datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()

    def keys(group, since):
        found = storage.database.read(lambda: list(storage.costs.by(group, since)))
        return [(key, part.number) for key, part in found]

    for since in (None, midnight, NOON, NOON - 1):
        assert keys("metadata.team", since) == [("lake", 1), ("sea", 1)]
        assert keys(f"metadata.{odd}", since) == [("7", 1)] * 2
        assert keys("metadata.nobody", since) == [(None, 1)] * 2
        assert keys("day", since) == [(day.isoformat(), 1)] * 2
    for since in (midnight + 86_400, NOON + 1):
        assert keys("metadata.team", since) == keys("batch", since) == []


@pytest.mark.parametrize(("charged", "left"), [(True, PRICE), (False, 0)])
def test_a_failed_generation_counts_as_the_settings_say(storage, do, batch, charged, left):
    do(storage.apply, a_step(batch, 1))
    do(storage.submissions.bind, "intent-1", "video_1")
    outcome = SubmissionOutcome(submission_id="intent-1", state=SubmissionState.FAILED, charged=charged)
    step = a_step(batch._replace(sequence=2), outcomes=(outcome,))
    assert do(storage.apply, step)
    assert do(storage.apply, step)
    assert used(storage) == left


def test_a_told_price_replaces_the_reservation_and_is_kept_exactly(storage, do, batch):
    do(storage.apply, a_step(batch, 1, 2))
    do(storage.submissions.bind, "intent-1", "video_1")
    price = ToldPrice("USD", Decimal("0.3999999000000001"))
    for _ in range(2):
        do(storage.submissions.tell, "intent-1", {"usage.cost": 0.3999999000000001}, price)
    row = storage.submissions.get("intent-1")
    assert (row.charge, row.charged_micros, row.charged_rest) == (ChargeState.CHARGED, 399_999, 900_000_000_100)
    assert used(storage) == PRICE + 400_000  # a budget counts whole millionths
    do(storage.submissions.settle, "intent-1", SubmissionState.FAILED, charged=False)
    assert charge(storage) is ChargeState.CHARGED


def test_a_server_that_charges_more_is_counted_and_flagged_and_then_nothing_further_is_sent(storage, do, batch):
    do(storage.apply, a_step(batch, 1))
    do(storage.submissions.tell, "intent-1", {"usage.cost": 5}, ToldPrice("USD", Decimal(5)))
    assert used(storage) == 5 * MICROS
    assert storage.submissions.get("intent-1").doubt == "more than was reserved"
    assert not do(storage.apply, a_step(batch._replace(sequence=2), 2))


@pytest.mark.parametrize(
    ("currency", "amount"),
    [("USD", "0"), ("EUR", "0.4"), ("USD", "-1"), ("USD", "NaN"), ("USD", "40.1"), ("USD", "1e300")],
)
def test_a_told_price_that_can_not_be_meant_is_flagged_and_not_counted(storage, do, batch, currency, amount):
    do(storage.apply, a_step(batch, 1))
    do(storage.submissions.tell, "intent-1", {"usage.cost": amount}, ToldPrice(currency, Decimal(amount)))
    do(storage.submissions.bind, "intent-1", "video_1")
    row = storage.submissions.get("intent-1")
    assert (row.charge, row.told, used(storage)) == (ChargeState.ASSUMED, {"usage.cost": amount}, PRICE)
    assert row.doubt


def test_a_price_that_is_told_where_none_was_known_is_charged(storage, do):
    do(put, storage, a_batch(total=9, epoch=1))
    do(storage.submissions.intend, [priced(1, currency=None, reserved_micros=None)])
    do(storage.submissions.tell, "intent-1", {}, ToldPrice("USD", Decimal(0)))
    row = storage.submissions.get("intent-1")
    assert (row.charge, row.currency, row.charged_micros) == (ChargeState.CHARGED, "USD", 0)


def test_a_new_budget_begins_with_what_was_used(storage, do):
    do(put, storage, a_batch(total=9, epoch=1))
    do(storage.submissions.intend, [priced(1), priced(2, charge=None, seconds=None), priced(3)])
    do(storage.submissions.settle, "intent-3", SubmissionState.REFUSED)
    do(storage.ledger.set_batch_budget, "nature", [{"amount": "100", "unit": "USD"}, {"amount": "9", "unit": "videos"}])
    assert (used(storage), used(storage, "videos")) == (2 * PRICE, 2 * MICROS)
    do(storage.ledger.set_batch_budget, "nature", [{"amount": "1", "unit": "videos"}])
    (left,) = storage.ledger.of_batch("nature")
    assert (left.unit, left.ceiling_micros, left.used_micros) == ("videos", MICROS, 2 * MICROS)


def test_a_budget_that_a_former_owner_opened_again_is_added_up_anew(storage, do, batch):
    """Its step was recorded, the answer was lost, and meanwhile the batch has another budget."""
    step = a_step(batch, 1)
    do(storage.apply, step)
    do(storage.ledger.set_batch_budget, "nature", [{"amount": "9", "unit": "videos"}])
    moved = step.batch._replace(epoch=2, sequence=step.batch.sequence + 1, budget=[{"amount": "9", "unit": "videos"}])
    do(storage.batches.update, "nature", epoch=2, sequence=moved.sequence, budget=moved.budget)
    assert not do(storage.apply, step)
    assert do(storage.apply, a_step(moved, 2, epoch=2)) is True
    do(storage.ledger.set_batch_budget, "nature", BUDGET)
    assert used(storage) == 2 * PRICE


def test_what_may_have_been_paid_for_is_reserved_beyond_a_ceiling(storage, do, batch):
    assert do(storage.apply, a_step(batch, *range(1, 9), anyway=True)) is True
    assert used(storage) == 8 * PRICE


@pytest.mark.parametrize(
    ("amount", "parts"),
    [("0.4", (400_000, 0)), ("1e-10", (0, 100_000_000)), ("1000000", (10**12, 0)), ("1e-19", (0, 0))],
)
def test_an_amount_is_whole_numbers(amount, parts):
    assert exact(Decimal(amount)) == parts


def test_a_late_outcome_of_a_deleted_batch_leaves_the_budget_of_the_next_one_of_its_id_alone(storage, do, batch):
    do(storage.apply, a_step(batch, 1, 2))
    do(storage.batches.remove, "nature")
    do(storage.ledger.forget, ["nature"])
    later = storage.submissions.get("intent-2").intended_at + 60
    do(put, storage, batch._replace(created_at=later))
    do(storage.ledger.set_batch_budget, "nature", BUDGET)
    do(storage.submissions.settle, "intent-1", SubmissionState.REFUSED)
    do(storage.submissions.tell, "intent-2", {}, ToldPrice("USD", Decimal(5)))
    (budget,) = storage.ledger.of_batch("nature")
    assert budget.used_micros == storage.ledger.used(Key("batch", "nature", "USD")) == 0


def test_what_the_version_before_recorded_counts_against_budgets_that_were_open_already(storage, do, batch):
    do(storage.ledger.set_ceilings, {("total", "videos"): 9 * MICROS}, "us")
    do(storage.submissions.intend, [priced(1, charge=None, day=None, seconds=None)])
    do(storage.ledger.set_ceilings, {("total", "videos"): 9 * MICROS, ("day", "USD"): 9 * MICROS}, "us")
    assert len(standing(storage)) == 3
    assert storage.ledger.used(Key("total", "", "videos")) == MICROS


# --- ceilings of the database


@pytest.fixture
def many(storage, do):
    """A batch without a budget of its own."""
    batch = a_batch(total=99, epoch=1, status=BatchStatus.PROCESSING)
    do(put, storage, batch)
    return batch


def standing(storage):
    """What each ceiling has used; it is the sum of the charges of its period."""
    found = storage.ledger.all()
    for each in found:
        assert each.used_micros == storage.ledger.used(Key(*each[:3]))
    return {each[:3]: each.used_micros for each in found}


def test_a_ceiling_of_the_database_holds_for_a_process_that_knows_nothing_of_it(storage, do, many):
    assert do(storage.apply, a_step(many, 1)) is True
    other = Storage(storage.database)
    do(other.ledger.set_ceilings, {("day", "USD"): 1_000_000}, "another process")
    with pytest.raises(CeilingsChanged):
        do(storage.apply, a_step(many._replace(sequence=2), 2))
    assert do(storage.apply, a_step(many._replace(sequence=2), 2)) is True
    (key,) = standing(storage)
    assert (key[0], key[2]) == ("day", "USD")
    refusal = do(storage.apply, a_step(many._replace(sequence=3), 3))
    assert (refusal.index, refusal.budget.scope) == (0, "day")
    assert do(other.ledger.set_ceilings, {("day", "USD"): 2_000_000}, "again")[0].ceiling_micros == 1_000_000
    with pytest.raises(CeilingsChanged):
        do(storage.apply, a_step(many._replace(sequence=3), 3, 4, 5))
    assert do(storage.apply, a_step(many._replace(sequence=3), 3, 4, 5)) is True
    assert list(standing(storage).values()) == [5 * PRICE]


def test_a_ceiling_begins_with_what_was_used_and_counts_what_is_released(storage, do, many):
    do(storage.apply, a_step(many, 1, 2))
    do(storage.ledger.set_ceilings, {("total", "USD"): 900_000, ("month", "seconds"): 10 * MICROS}, "us")
    assert sorted(standing(storage).values()) == [2 * PRICE, 8 * MICROS]
    refusal = do(storage.apply, a_step(many._replace(sequence=2), 3))
    assert refusal.budget.unit in {"USD", "seconds"}
    do(storage.submissions.settle, "intent-1", SubmissionState.REFUSED)
    assert sorted(standing(storage).values()) == [PRICE, 4 * MICROS]
    assert do(storage.apply, a_step(many._replace(sequence=2), 3)) is True


def test_a_charge_belongs_to_the_day_of_its_intent_for_ever(storage, do, many, monkeypatch):
    do(storage.ledger.set_ceilings, {("day", "USD"): 500_000, ("month", "USD"): 1_000_000}, "us")
    eve = datetime(2026, 11, 30, 23, 59, 59, 999_999, UTC).timestamp()
    monkeypatch.setattr(storage.database, "time", lambda: eve)
    assert do(storage.apply, a_step(many, 1)) is True
    assert not do(storage.apply, a_step(many._replace(sequence=2), 2))
    monkeypatch.setattr(storage.database, "time", lambda: eve + 1e-6)
    assert do(storage.apply, a_step(many._replace(sequence=2), 2)) is True
    do(storage.submissions.tell, "intent-1", {}, ToldPrice("USD", Decimal("0.3")))
    used = {key[:2]: used for key, used in standing(storage).items() if used}
    assert used == {
        ("day", "2026-11-30"): 300_000, ("month", "2026-11"): 300_000,
        ("day", "2026-12-01"): PRICE, ("month", "2026-12"): PRICE,
    }  # fmt: skip


def test_none_removes_all_ceilings(storage, do, many):
    do(storage.ledger.set_ceilings, {("total", "videos"): MICROS, ("day", "USD"): MICROS}, "us")
    assert do(storage.apply, a_step(many, 1)) is True
    assert not do(storage.apply, a_step(many._replace(sequence=2), 2))
    assert len(do(storage.ledger.set_ceilings, {}, "us")) == 2
    assert do(storage.ledger.set_ceilings, {}, "us") == []
    assert do(storage.apply, a_step(many._replace(sequence=2), 2)) is True
    do(storage.ledger.set_ceilings, {("total", "videos"): 3 * MICROS}, "us")
    assert [(each.used_micros, each.ceiling_micros) for each in storage.ledger.current()] == [(2 * MICROS, 3 * MICROS)]


def test_all_ceilings_are_held_in_one_order():
    keys = [Key("batch", "b", "EUR"), Key("total", "", "seconds"), Key("day", "d", "USD"), Key("month", "m", "EUR")]
    assert [key.unit for key in sorted(keys, key=lambda key: key.order)] == ["EUR", "USD", "seconds", "EUR"]
