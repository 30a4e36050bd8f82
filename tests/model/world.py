"""Processes that share a database and a server, in one thread: real actors, real storage, and nothing moves by itself.

A process is its Dispatcher with all that it starts. It goes on callback by callback and write by write, so that it can
be killed or suspended between any two of them.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future
from datetime import timedelta
from itertools import count
from types import SimpleNamespace

import pykka
import pytest
import tenacity

from actors import claiming, dispatcher, supervisor, worker
from actors.agenda import DispatcherCallbacks
from actors.batch import batch_update
from actors.batch.batch_update import request_digest
from actors.batch.orphans import Orphans
from actors.batch.prices import Priced
from actors.batch.scheduling import Rules
from actors.batch.start import NewBatch, create, want
from actors.claiming import LEASE_MARGIN
from actors.dispatcher import Dispatcher
from actors.messages import ClaimAll, WorkerLost
from actors.settings import Settings
from actors.sora import evidence, listing, rate_limiter, resolving, submission, watching
from actors.sora.outcomes import SEND_WINDOW
from actors.sora.submission import LeaseMargin, Submitter
from actors.sora.watching import Watcher
from actors.video import admission, setbacks, task
from actors.video.admission import Admission
from actors.video.tools import Bodies, Loader, Tools
from storage.database import Database
from storage.states import LIVE_SUBMISSION, SubmissionState
from storage.storage import Storage
from tests.builders import NOON, PROVIDER, a_batch, a_job, an_owner
from tests.model.budgets import PRICE, SECONDS, Grants
from tests.model.loop import Clock, ModelIO
from tests.model.provider import SETTLE, SUBMIT_TIMEOUT, Files, ModelClient, Provider

LEASE = 6.0
TICK = 1.0
_LIVELOCK = 20_000
_NOTHING_MADE = {SubmissionState.NOT_SENT, SubmissionState.REFUSED, SubmissionState.ABSENT}
_LET_GO = {SubmissionState.FAILED, SubmissionState.DELETED}
CLOCK = Clock()
"""One for all models: SQLite's connection knows it."""


def open_database(path):
    """A database whose time is the model's, as quick as may be: nobody pulls its plug."""
    database = Database(f"sqlite:///{path}")
    database.clock, database.time = "model_now()", CLOCK.time
    database.peewee.register_function(CLOCK.time, "model_now", 0)
    database.open()
    return database


class Recorder:
    """What a process has for a `Recorder`: one write at each step."""

    def __init__(self, database):
        self._database, self._tasks = database, deque()
        self.away = self.repeats = False

    def write(self, run, *, patience=None):
        return self._put(run, writes=True)

    def read(self, run):
        return self._put(run, writes=False)

    def _put(self, run, *, writes):
        answer = Future()
        self._tasks.append((run, answer, writes))
        return answer

    def step(self):
        """Do one write, or one read; False if there is none."""
        if self.away or not self._tasks:
            return False
        run, answer, writes = self._tasks[0]
        repeats, self.repeats = self.repeats and writes, False
        try:
            if writes:
                with self._database.begin():
                    value = run()
            else:
                value = run()
        except Exception as error:
            self._tasks.popleft()
            answer.set_exception(error)
        else:
            if not repeats:  # else the answer to the COMMIT was lost
                self._tasks.popleft()
                answer.set_result(value)
        return True


class Process:
    """One that may own batches."""

    def __init__(self, world, number, host):
        self.world = world
        self.owner = an_owner(f"process-{number}", host=host, pid=number)
        self.dead = self.suspended = self.writes_first = self.forgets_live = False
        self.fuse = None
        """How many steps it goes on, and what happens then."""
        self.recorder = Recorder(world.database)
        self.io = ModelIO(CLOCK)
        self.client = ModelClient(self, world.provider)
        self.reports = []
        """What its workers have reported, to whom."""
        lease = LeaseMargin()
        rules = Rules(
            provider=PROVIDER,
            owner_id=self.owner.id,
            paid_attempts=world.paid_attempts,
            progress_interval=0.0,
            price=lambda _: Priced("USD", PRICE, {}),
            charges_failed=world.charges_failed,
        )
        submitter = Submitter(
            self.io, self.client, world.storage, self.recorder, world.settings,
            provider=PROVIDER, owner_id=self.owner.id, lease=lease,
        )  # fmt: skip
        files = Files()
        watcher = Watcher(self.client, world.settings.sora_poll_interval.total_seconds())
        tidy = Orphans(self.recorder, world.storage, files).clean_soon
        loader = Loader(self.io, self.client, world.storage, self.recorder)
        tools = Tools(
            self.io, self.client, submitter, loader, Bodies(loader.body), watcher, world.storage, self.recorder,
            world.settings, files, files, tidy,
        )  # fmt: skip
        doors = DispatcherCallbacks(
            ended=lambda _: None, released=lambda *_: None, closed=Future(), waits={}, died=world.dispatcher_died
        )  # fmt: skip
        admission = Admission(None, self.client.rate_limiter, self.io.loop)
        submitter.on_left = admission.left
        self.dispatcher = Dispatcher.start(tools, admission, rules, self.owner, lease, doors)

    def tell(self, message):
        self.dispatcher.tell(message)

    @property
    def runs(self):
        return not self.dead and not self.suspended

    def step(self):
        """One callback, or one write; False if there is nothing to do."""
        self.world.current = self
        first, second = self.io.loop.step, self.recorder.step
        if self.writes_first:
            first, second = second, first
        moved = first() or second()
        if moved and self.fuse is not None:
            self._burn()
        return moved

    def _burn(self):
        left, then = self.fuse
        self.fuse = (left - 1, then) if left > 1 else None
        if self.fuse is None:
            then()

    def kill(self):
        """All of its memory is gone, and its connections are closed."""
        self.dead = True
        for post in self.world.provider.posts:
            if post.process is self:
                post.closed_at = min(post.closed_at, CLOCK.now)

    def lease_until(self):
        """As it is recorded."""
        neighbours = self.world.storage.owners.neighbours(self.owner.host, self.owner.boot)
        return max((each.lease_until for each in neighbours if each.id == self.owner.id), default=0.0)

    def suspend(self):
        self.suspended = True


class WatchedStorage(Storage):
    """Sees to it that a stale epoch writes nothing."""

    def __init__(self, database, broken):
        super().__init__(database)
        self.database, self._broken = database, broken

    def apply(self, changes):
        before, grants = self.batches.get(changes.batch.id), Grants(self.database, changes)
        applied = super().apply(changes)
        if applied and (wrong := grants.check()):
            self._broken(wrong)
        if applied and before.epoch not in (changes.epoch, changes.batch.epoch):
            self._broken(f"epoch {changes.epoch} wrote a step, and the batch had {before.epoch}")
        if not applied and self.batches.get(changes.batch.id) != before:
            self._broken("a refused step wrote something")
        return applied


class World:
    """All of it, and what was seen to break a promise."""

    def __init__(self, database, *, skew=0.0, paid_attempts=1, charges_failed=True):
        CLOCK.now = NOON
        self.database, self.paid_attempts, self.charges_failed = database, paid_attempts, charges_failed
        self.broken = []
        self.consented = set()
        """Submissions that a person let go: another may be paid for, whatever became of them."""
        self.storage = WatchedStorage(database, self.broken.append)
        self.provider = Provider(CLOCK, skew, self._leaving)
        self.settings = Settings(
            _env_file=None, openai_base_url="http://server/v1", sora_settle=SETTLE * 1000,
            sora_submit_timeout=SUBMIT_TIMEOUT * 1000, batch_lease=LEASE * 1000, sora_poll_interval=timedelta(seconds=1),
            sora_unknown_submission="fail", sora_listing="whole", batch_parallel=50,
        )  # fmt: skip
        self.processes, self._numbers = [], count(1)
        self.current = None
        self._others = pykka.ActorRegistry.get_all()
        self._patches = pytest.MonkeyPatch()
        self._patch()

    def _patch(self):
        put = self._patches.setattr
        for module in (
            dispatcher,
            admission,
            task,
            setbacks,
            supervisor,
            rate_limiter,
            submission,
            watching,
            listing,
            tenacity,
        ):
            put(module, "time", CLOCK)
        for module in (claiming, supervisor, submission, resolving):
            put(module, "boottime", CLOCK.time)
        for module in (claiming, evidence):
            put(module, "is_dead", lambda owner: any(each.dead for each in self.processes if each.owner.id == owner.id))
        put(evidence, "this_host", lambda: (self.current.owner.host, self.current.owner.boot))
        for module, name in ((dispatcher, "LOOK"), (supervisor, "TICK")):
            put(module, name, TICK)
        put(task, "_made_with", lambda _submission: "")
        put(setbacks, "_LOST_AFTER", 5.0)
        intents = count(1)
        put(batch_update, "uuid", SimpleNamespace(uuid4=lambda: SimpleNamespace(hex=f"intent-{next(intents):04d}")))
        tell = worker.tell
        load = claiming.load

        def overheard(ref, message):
            if isinstance(message, WorkerLost):
                self.broken.append(f"a worker died: {message.error}")
            else:
                self.current.reports.append((ref, message))
            tell(ref, message)

        def forgetful(storage, batch_id):
            loaded = load(storage, batch_id)
            if self.current.forgets_live and loaded.live:
                self.current.forgets_live = False
                loaded.live.clear()
            return loaded

        put(worker, "tell", overheard)
        put(claiming, "load", forgetful)

    def dispatcher_died(self, _, why):
        self.broken.append(f"a dispatcher died: {why}")

    def close(self):
        for process in self.processes:
            if not process.dead:
                process.kill()
        for process in self.processes:
            process.io.loop.forget()
        for ref in pykka.ActorRegistry.get_all():
            if ref not in self._others:
                pykka.ActorRegistry.unregister(ref)
        self._patches.undo()

    # --- what is done to it

    def create(self, batch_id, prompts, concurrency, budget=()):
        batch = a_batch(batch_id, total=len(prompts), concurrency=concurrency, budget=list(budget))
        jobs = [
            a_job(position, batch_id, prompt=prompt, duration=SECONDS) for position, prompt in enumerate(prompts, 1)
        ]
        with self.database.begin():
            create(self.storage, NewBatch(batch, jobs, []))
            want(self.storage, batch_id, PROVIDER, None)

    def start(self, host):
        process = Process(self, next(self._numbers), host)
        self.processes.append(process)
        process.tell(ClaimAll())
        return process

    def run(self):
        """Go on until nobody has anything to do at this moment."""
        for _ in range(_LIVELOCK):
            moved = [process.step() for process in self.processes if process.runs]
            if not any(moved):
                return
        busy = [(process.owner.id, list(process.io.loop._ready)[:3]) for process in self.processes if process.runs]
        raise AssertionError(f"the processes never come to rest: {busy}")

    def pass_time(self, seconds):
        """Let time pass, and everybody do what is due."""
        until = CLOCK.now + seconds
        self.run()
        while True:
            timers = [process.io.loop.next_timer() for process in self.processes if process.runs]
            due = min([timer for timer in timers if timer is not None], default=until)
            if due > until:
                break
            CLOCK.now = max(CLOCK.now, due)
            self.run()
            if due == until and not any(timer is not None and timer <= until for timer in timers):
                break
        CLOCK.now = until
        self.run()

    # --- what is looked at

    def submissions(self):
        return {row.id: row for batch in self.batches() for row in self.storage.submissions.of_batch(batch.id)}

    def batches(self):
        return self.storage.batches.find(limit=100)

    def holders(self):
        """Which submission holds each video."""
        return {row.remote_id: row for row in self.submissions().values() if row.remote_id is not None}

    def _leaving(self, post):
        """A POST leaves: it must be allowed to."""
        rows, now = self.submissions(), CLOCK.now
        if post.key not in rows:
            self.broken.append("a POST left without an intent")
            return
        row = rows[post.key]
        job = self.storage.jobs.by_id([row.job_id])[row.job_id]
        if row.state in _NOTHING_MADE:
            self.broken.append(f"a POST left that is recorded as {row.state}")
        if now > row.intended_at + SEND_WINDOW + 1e-6:
            self.broken.append("a POST left after its window")
        if now > post.process.lease_until() - LEASE_MARGIN + 1e-6:
            self.broken.append("a POST left when its sender could not trust its lease")
        for other in rows.values():
            if other.job_id == row.job_id and other.id != row.id and other.state in LIVE_SUBMISSION:
                self.broken.append(f"a POST left while another one of its job is {other.state}")
        post.sent_at = now
        same = [entry for entry in rows.values() if entry.digest == row.digest]
        jobs = {entry.job_id for entry in same if entry.id not in self.consented}
        made = [each for each in self.provider.posts if each.prompt == post.prompt and self._counts(each, rows)]
        if row.id not in self.consented and len(made) > len(jobs):
            self.broken.append(f"{len(made)} videos were paid for with {post.prompt!r}, for {len(jobs)} jobs")
        assert row.digest == request_digest(job)
        batch = self.storage.batches.get(row.batch_id)
        mine = {
            entry.job_id for entry in rows.values() if entry.batch_id == batch.id and entry.state in LIVE_SUBMISSION
        }
        open_jobs = {job.id for job in self.storage.jobs.of_batch(batch.id, open_only=True)}
        if batch.owner == row.sender and len(mine & open_jobs) > batch.concurrency:
            self.broken.append(f"{len(mine & open_jobs)} videos are in the making at once")

    def _counts(self, post, rows):
        """Whether this POST has made, or may yet make, a video that is there and that nobody let go."""
        if post.video is None:
            return post.possible(CLOCK.now) and post.key not in self.consented
        if post.video.gone or post.video.status == "failed":
            return False
        holder = next((row for row in rows.values() if row.remote_id == post.video.id), rows[post.key])
        return holder.id not in self.consented and holder.state not in _LET_GO
