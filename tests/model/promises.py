"""The promises as a machine that hypothesis drives: processes, crashes, takeovers and a bad network, in any order.

`python -m tests.model.promises --minutes 10` searches for longer than the tests do.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from actors.batch.cancellation import cancel
from actors.batch.events import Event
from actors.batch.retrying import retry
from actors.batch.transitions import derived_counts
from actors.batch.updating import update
from actors.errors import Conflict, ErrorCode
from actors.messages import ReleaseBatch
from storage.states import FINAL_BATCH, FINAL_JOB, LIVE_SUBMISSION, UNRESOLVED, BatchStatus, JobStatus, SubmissionState
from tests.builders import PROVIDER
from tests.model import budgets
from tests.model.provider import LAG, LATE, LISTINGS, REFUSING
from tests.model.world import CLOCK, World, open_database

HOSTS = ("one", "two")
_ENDS = {"batch.completed", "batch.partial", "batch.failed", "batch.cancelled"}
_JOB_ENDS = {"job.completed", "job.failed", "job.cancelled"}
_TABLES = ("budgets", "ceilings", "owners", "submissions", "journal", "jobs", "batches")
_MOMENTS, _SPANS = (0.1, 0.5, 1.0), (2.0, 3.5, 7.0, 12.0)
_PATIENCE = 240
_LEFT_OPEN = (ErrorCode.SUBMISSION_UNKNOWN, ErrorCode.CANCELLED, ErrorCode.INTERNAL)
"""How a job may end of whose POST nobody knows: its batch may have been given up after too many deaths of its owners."""


class Promises(RuleBasedStateMachine):
    """What may happen, and what must hold whatever happens."""

    database = None

    def __init__(self):
        super().__init__()
        self._connection = self.database.connection()
        self._connection.__enter__()
        self.database.execute("PRAGMA synchronous=OFF")
        for table in _TABLES:
            self.database.execute(f"DELETE FROM {table}")  # noqa: S608
        self.world = None
        self.ended, self.epochs, self.told, self.submitted = {}, {}, {}, Counter()
        self.sound = True

    @initialize(
        batches=st.lists(
            st.tuples(
                st.lists(st.sampled_from(["a boat", "a lake"]), min_size=1, max_size=4), st.integers(1, 3),
                st.sampled_from(budgets.BUDGETS),
            ),
            min_size=1, max_size=2,
        ),
        skew=st.sampled_from([0.0, 0.7, -3.0, 500.0]), paid_attempts=st.integers(1, 2), charges_failed=st.booleans(),
    )  # fmt: skip
    def begin(self, batches, skew, paid_attempts, charges_failed):
        self.world = World(self.database, skew=skew, paid_attempts=paid_attempts, charges_failed=charges_failed)
        for number, (prompts, concurrency, budget) in enumerate(batches, 1):
            self.world.create(f"batch{number}", prompts, concurrency, budgets.budget(budget))
        self.world.start(HOSTS[0])
        self.world.run()

    # --- processes

    @property
    def alive(self):
        return [process for process in self.world.processes if not process.dead]

    def pick(self, at, entries):
        entries = list(entries)
        return entries[at % len(entries)] if entries else None

    @precondition(lambda self: len(self.alive) < 2)
    @rule(host=st.sampled_from(HOSTS))
    def start_a_process(self, host):
        self.world.start(host)
        self.world.run()

    @precondition(lambda self: any(process.fuse is None for process in self.alive))
    @rule(at=st.integers(0, 1), steps=st.integers(0, 25))
    def kill_soon(self, at, steps):
        """At once, or between two of its next steps."""
        if process := self.pick(at, self.alive):
            if steps:
                process.fuse = (steps, process.kill)
            else:
                process.kill()

    @precondition(lambda self: any(process.runs and process.fuse is None for process in self.alive))
    @rule(at=st.integers(0, 1), steps=st.integers(0, 25))
    def suspend_soon(self, at, steps):
        if process := self.pick(at, self.alive):
            if steps:
                process.fuse = (steps, process.suspend)
            else:
                process.suspend()

    @precondition(lambda self: any(process.suspended for process in self.alive))
    @rule(writes_first=st.booleans())
    def a_zombie_goes_on(self, writes_first):
        process = next(process for process in self.alive if process.suspended)
        process.suspended, process.fuse, process.writes_first = False, None, writes_first
        self.world.run()

    @rule(at=st.integers(0, 1), repeats=st.booleans())
    def the_database_stumbles(self, at, repeats):
        """It is away, or the answer to a COMMIT gets lost."""
        if process := self.pick(at, self.alive):
            process.recorder.repeats, process.recorder.away = repeats, not repeats

    @precondition(lambda self: any(process.recorder.away for process in self.alive))
    @rule()
    def the_database_is_back(self):
        for process in self.alive:
            process.recorder.away = False
        self.world.run()

    @rule(at=st.integers(0, 1), which=st.integers(0, 50))
    def a_report_comes_again(self, at, which):
        process = self.pick(at, [process for process in self.alive if process.runs and process.reports])
        if process:
            ref, report = self.pick(which, reversed(process.reports))
            if ref.is_alive():
                ref.tell(report)
                self.world.run()

    @precondition(lambda self: not any(process.forgets_live for process in self.alive))
    @rule(at=st.integers(0, 1))
    def an_owner_forgets_its_submissions(self, at):
        """An error of ours, whatever it may be: what is live is not known to the next supervisor."""
        if process := self.pick(at, self.alive):
            process.forgets_live = True

    @rule(at=st.integers(0, 1), which=st.integers(0, 1))
    def a_batch_is_let_go(self, at, which):
        if process := self.pick(at, self.alive):
            process.tell(ReleaseBatch(self.pick(which, self.world.batches()).id, wanted=True))
            self.world.run()

    @rule(seconds=st.sampled_from(_MOMENTS))
    def a_moment_passes(self, seconds):
        self.world.pass_time(seconds)

    @rule(seconds=st.sampled_from(_SPANS))
    def time_passes(self, seconds):
        self.world.pass_time(seconds)

    # --- the network and the server

    def open_posts(self):
        return [post for post in self.world.provider.posts if post.sent and not post.answer.done()]

    @precondition(lambda self: self.open_posts())
    @rule(at=st.integers(0, 3), cost=st.sampled_from(budgets.TOLD))
    def a_post_is_answered(self, at, cost):
        post = self.pick(at, self.open_posts())
        if post.video is not None or post.possible(CLOCK.now):
            self.world.provider.arrive(post)
            self.world.provider.reply(post, 200, cost)
            self.world.run()

    @precondition(lambda self: self.open_posts())
    @rule(at=st.integers(0, 3), status=st.sampled_from([*REFUSING, 408, 500]))
    def a_post_is_refused(self, at, status):
        post = self.pick(at, self.open_posts())
        if post.video is None or status not in REFUSING:
            self.world.provider.reply(post, status)
            self.world.run()

    @precondition(lambda self: self.open_posts())
    @rule(at=st.integers(0, 3))
    def the_answer_to_a_post_is_lost(self, at):
        post = self.pick(at, self.open_posts())
        if post.possible(CLOCK.now):
            self.world.provider.arrive(post)
        self.world.provider.cut(post)
        self.world.run()

    @precondition(lambda self: self.open_posts())
    @rule(at=st.integers(0, 3), for_good=st.booleans())
    def a_post_is_lost(self, at, for_good):
        """It never arrives, or late."""
        post = self.pick(at, self.open_posts())
        post.over = post.over or for_good
        self.world.provider.cut(post)
        self.world.run()

    @precondition(lambda self: any(post.possible(CLOCK.now) for post in self.world.provider.posts))
    @rule(at=st.integers(0, 3))
    def a_post_arrives(self, at):
        """In time, or late: its answer is still to come, or nobody hears it."""
        post = self.pick(at, [post for post in self.world.provider.posts if post.possible(CLOCK.now)])
        self.world.provider.arrive(post)

    @rule(connects=st.booleans())
    def connecting_takes_long(self, connects):
        self.world.provider.connects = connects
        for post in self.world.provider.posts:
            if connects and not post.connected.done():
                post.connected.set_result(None)
        self.world.run()

    @rule(listing=st.sampled_from(LISTINGS), lag=st.sampled_from([0.0, LAG]), slow=st.booleans())
    def the_listing_changes(self, listing, lag, slow):
        # Before we ever made a video, an empty listing tells nothing but that.
        if listing == "empty" and not any(row.remote_id for row in self.world.submissions().values()):
            return
        provider = self.world.provider
        provider.listing, provider.lag, provider.slow = listing, lag, slow
        provider.answer_listings()
        self.world.run()

    @precondition(lambda self: self.world.provider.held)
    @rule()
    def a_listing_comes(self):
        self.world.provider.answer_listings()
        self.world.run()

    @precondition(lambda self: self.world.provider.videos)
    @rule(which=st.integers(0, 7), status=st.sampled_from(["in_progress", "completed", "completed", "failed"]))
    def a_video_goes_on(self, which, status):
        working = [video for video in self.world.provider.videos if video.status in ("queued", "in_progress")]
        if video := self.pick(which, working):
            video.status, video.progress = status, 50 if status == "in_progress" else 100

    @rule(prompt=st.sampled_from(["a boat", "a castle"]))
    def another_client_makes_a_video(self, prompt):
        self.world.provider.make(prompt)

    @precondition(lambda self: any(not video.gone for video in self.world.provider.videos))
    @rule()
    def the_server_loses_its_memory(self):
        self.world.provider.forget()

    # --- people

    @rule(which=st.integers(0, 1))
    def somebody_cancels(self, which):
        batch = self.pick(which, self.world.batches())
        try:
            with self.world.database.begin():
                summary = cancel(self.world.storage, batch.id, None, CLOCK.now)
        except Conflict:
            assert batch.status in FINAL_BATCH - {BatchStatus.CANCELLED}
            return
        self.check_charges(batch.id, summary)
        self.world.run()

    def check_charges(self, batch_id, summary):
        told = {charge.job_id for charge in summary.may_be_charged}
        for job_id, row in self.world.storage.submissions.live_of_batch(batch_id).items():
            job = self.world.storage.jobs.by_id([job_id])[job_id]
            assert job.status is not JobStatus.CANCELLED or job_id in told, f"{row.state} is not told of"

    @rule(which=st.integers(0, 1), named=st.none() | st.integers(0, 3), pay_again=st.booleans())
    def somebody_retries(self, which, named, pay_again):
        batch = self.pick(which, self.world.batches())
        jobs = self.world.storage.jobs.of_batch(batch.id)
        job_ids = None if named is None else [self.pick(named, jobs).id]
        try:
            with self.world.database.begin():
                tried = retry(
                    self.world.storage, batch.id, PROVIDER, job_ids=job_ids, changes={}, changed_references=[],
                    pay_again=pay_again, at=CLOCK.now,
                ).job_ids  # fmt: skip
        except Conflict:
            return
        if pay_again:
            rows = self.world.submissions().values()
            self.world.consented |= {row.id for row in rows if row.state is SubmissionState.ABANDONED}
        for job_id in [*tried, batch.id]:
            self.ended.pop(job_id, None)
        self.world.run()

    @rule(which=st.integers(0, 1), text=st.sampled_from(budgets.BUDGETS))
    def somebody_changes_a_budget(self, which, text):
        with self.world.database.begin():
            update(self.world.storage, self.pick(which, self.world.batches()).id, None, budgets.budget(text), CLOCK.now)
        self.world.run()

    # --- what holds, whatever happens

    @invariant()
    def promises_hold(self):
        if self.world is None:
            return
        try:
            assert not self.world.broken, self.world.broken
            errors = [error for process in self.world.processes for error in process.io.loop.errors]
            assert not errors, errors
            for batch in self.world.batches():
                self.check(batch)
            budgets.check(self.database)
        except BaseException:
            self.sound = False
            raise

    def check(self, batch):
        storage = self.world.storage
        jobs = storage.jobs.of_batch(batch.id)
        counts = {name: getattr(batch, name) for name in ("completed", "failed", "cancelled", "processing")}
        assert counts == derived_counts(jobs)
        assert batch.total == len(jobs)
        for entry in [*jobs, batch]:
            before = self.ended.get(entry.id)
            assert before in (None, entry.status), f"{entry.id} was {before} and is {entry.status}"
            if entry.status in FINAL_JOB | FINAL_BATCH:
                self.ended[entry.id] = entry.status
        assert (batch.status in FINAL_BATCH) == all(job.status in FINAL_JOB for job in jobs)
        if batch.status in FINAL_BATCH - {BatchStatus.CANCELLED}:
            assert (batch.status is BatchStatus.COMPLETED) == (batch.completed == batch.total)
            assert (batch.status is BatchStatus.FAILED) == (batch.completed == 0)
        assert batch.epoch >= self.epochs.get(batch.id, 0), "the epoch went back"
        self.epochs[batch.id] = batch.epoch
        rows = storage.submissions.of_batch(batch.id)
        live = Counter(row.job_id for row in rows if row.state in LIVE_SUBMISSION)
        assert max(live.values(), default=0) <= 1, "a job has two live submissions"
        for job in jobs:
            if job.status is JobStatus.COMPLETED:
                own = [row for row in rows if row.job_id == job.id]
                assert job.remote_id in {each for row in own for each in (row.remote_id, row.former_remote_id)}
        self.check_journal(batch, jobs, rows)

    def check_journal(self, batch, jobs, rows):
        last, tally = self.told.setdefault(batch.id, (0, Counter()))
        for record in self.world.storage.journal.read(batch.id, last + 1):
            event = Event.parse(record)
            assert record.sequence == int(event.sequence) == last + 1, "the sequence has a gap"
            last += 1
            self.check_progress(event.data["progress"])
            if event.name == "batch.retried":
                tally.clear()
            elif event.name in _ENDS:
                assert event.data["status"] == event.name.removeprefix("batch.")
                tally["end"] += 1
            else:
                late = event.name in {"job.retried", "batch.updated", "job.settled"}
                assert not tally["end"] or late, f"{event.name} came after the end"
            if event.name in _JOB_ENDS:
                tally["end of", event.subject] += 1
            if event.name == "batch.started":
                tally["start"] += 1
            assert max(tally.values(), default=0) <= 1, f"an event was told twice: {event.name} of {event.subject}"
            if event.name == "job.submitted":
                self.submitted[event.subject] += 1
        assert last == batch.sequence, "not every step is told"
        self.told[batch.id] = (last, tally)
        tries = Counter(row.job_id for row in rows)
        assert all(self.submitted[job.id] <= tries[job.id] for job in jobs)

    def check_progress(self, progress):
        finished = progress["completed"] + progress["failed"] + progress["cancelled"]
        assert progress["total"] == finished + progress["pending"]
        assert progress["percentage"] == finished * 100 // progress["total"]
        assert 0 <= progress["processing"] <= progress["pending"]

    # --- the end

    def teardown(self):
        try:
            if self.world is not None and self.sound:
                self.promises_hold()
                self.finish()
        finally:
            if self.world is not None:
                self.world.close()
            self._connection.__exit__(None, None, None)

    def finish(self):
        """Whatever has happened: a new owner, and a network that behaves, bring everything to its end."""
        world, provider = self.world, self.world.provider
        for process in self.alive:
            process.kill()
        provider.connects, provider.obliging, provider.listing, provider.lag, provider.slow = (
            True,
            True,
            "well",
            0.0,
            False,
        )
        for batch in world.batches():
            with world.database.begin():
                world.storage.batches.update(batch.id, wanted=True)
        world.start(HOSTS[0])
        for _ in range(_PATIENCE):
            if all(batch.status in FINAL_BATCH for batch in world.batches()):
                break
            world.pass_time(1.0)
            self.promises_hold()
        open_batches = [batch for batch in world.batches() if batch.status not in FINAL_BATCH]
        assert not open_batches, f"never ended: {open_batches}"
        world.pass_time(LATE)
        self.promises_hold()
        self.check_paid()

    def check_paid(self):
        """Every video that was paid for and is there belongs to a job, or its job says that nobody knows.

        Or it was exchanged: another client's video of the same prompt was taken for it before it arrived.
        """
        rows, holders = self.world.submissions(), self.world.holders()
        ours = {post.video.id for post in self.world.provider.posts if post.video is not None}
        taken = Counter(
            video.prompt for video in self.world.provider.videos if video.id in holders and video.id not in ours
        )
        for post in self.world.provider.posts:
            if post.video is None or post.video.gone or post.video.id in holders:
                continue
            row = rows[post.key]
            job = self.world.storage.jobs.by_id([row.job_id])[row.job_id]
            code = job.error and job.error["code"]
            if row.state in UNRESOLVED:
                assert code in _LEFT_OPEN, f"{post.video.id} is lost: {job}"
            elif row.id not in self.world.consented:
                assert taken[post.prompt] > 0, f"{post.video.id} is lost: {row}"
                taken[post.prompt] -= 1


def search(database, examples, steps, **more):
    """Search for a way to break a promise.

    Raises:
        AssertionError: there is one; hypothesis prints the shortest that it found.
    """
    machine = type("Promises", (Promises,), {"database": database})
    profile = settings(
        max_examples=examples, stateful_step_count=steps, deadline=None, database=None,
        suppress_health_check=list(HealthCheck), **more,
    )  # fmt: skip
    run_state_machine_as_test(machine, settings=profile)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--steps", type=int, default=60)
    options = parser.parse_args(arguments)
    until, rounds = time.monotonic() + options.minutes * 60, 0
    with tempfile.TemporaryDirectory() as folder:
        database = open_database(Path(folder) / "model.db")
        while time.monotonic() < until:
            search(database, 100, options.steps, print_blob=True)
            rounds += 1
            print(f"{rounds * 100} examples of up to {options.steps} steps: no promise was broken", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
