"""What an operation is tried on: batches that are made ready for it, left by killed processes, and looked at at last.

Each kill of an operation has a batch of its own; many of them die at once, and one service finishes what they left.
"""

import json
import os
import signal
from collections.abc import Callable, Iterable
from datetime import timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

from actors.batch.views import Batch
from actors.errors import NotFound
from actors.service import BatchService
from storage.budgets import Key
from storage.records import SubmissionRecord
from tests.integration.crash_points import Operation
from tests.integration.support import (
    PATIENCE,
    Drivers,
    check_files,
    check_journal,
    check_objects,
    numbered,
    options_for,
    rows,
    settings_from,
    until,
    videos,
)
from tests.provider.client import Provider

LIMIT, COUNT = 2, 4
IN_A_BUCKET = {Operation.STORE, Operation.CANCEL_STORED, Operation.DELETE_STORED, Operation.REMOVE_OLD}
"""These put files into a bucket."""
_AT_ONCE = 6
_FOR_EVER = 600.0
_LATENCY = 0.15
_STALL = 1.0
_RATE, _SECONDS, _WORD = "0.17", 4, "0.25"
"""US dollars a second, the seconds of a video, and what a person says that one cost."""

Id, Order = str, dict[str, Any]


def request(batch_id: Id) -> dict[str, Any]:
    """Its budget has room for no video more than it has: what is not given back, or reserved twice, makes it fail."""
    budget = {"amount": COUNT, "unit": "videos"}
    return videos(*numbered(COUNT, batch_id), id=batch_id, concurrency=LIMIT, budget=budget)


class Dying:
    """Kills processes that do the same to a batch each, and finishes the batches.

    Attributes:
        wrong: of each batch with which something was wrong, what.
    """

    def __init__(self, operation: Operation, provider: Provider, drivers: Drivers, folder: Path) -> None:
        self._operation, self._provider, self._drivers, self._folder = operation, provider, drivers, folder
        self._options = options_for(provider.base_url, folder, sora_delete_on_cancel="auto")
        if operation in IN_A_BUCKET:
            self._options["video_store"] = os.environ["VIDEO_STORE"]
        if operation is Operation.CANCEL_STORED:  # else every process needs a runtime, for the DELETEs
            self._options["sora_delete_on_cancel"] = "never"
        if operation is Operation.PAY:
            (folder / "prices.json").write_text(json.dumps({"*": {"output_cost_per_second": float(_RATE)}}))
            self._options |= {
                "sora_prices": str(folder / "prices.json"), "sora_charges_failed": "no",
                "sora_budget": "900 USD, 9000 seconds per day",
            }  # fmt: skip
        self.wrong: dict[Id, str] = {}

    def _request(self, batch_id: Id) -> dict[str, Any]:
        """Budgets with room for no more than it has, in each unit, where prices are known."""
        asked = request(batch_id)
        if self._operation is not Operation.PAY:
            return asked
        asked["videos"][0]["prompt"] += " [fail]"
        for video in asked["videos"]:
            video["duration"] = _SECONDS
        seconds = {"amount": COUNT * _SECONDS, "unit": "seconds"}
        money = {"amount": str(COUNT * _SECONDS * Decimal(_RATE)), "unit": "USD"}
        return asked | {"budget": [asked["budget"], seconds, money]}

    def watch(self, batch_id: Id) -> dict[str, Any]:
        """Do it undisturbed: what it passed, and what had no name."""
        self._prepare([batch_id])
        self._hold_up_a_file(batch_id)
        return dict(self._run({batch_id: {"watch": True}})[batch_id]["said"])

    def kill(self, cases: dict[Id, tuple[str, int]]) -> None:
        """Kill a process in each batch, another one that goes on with it, and finish them."""
        self._prepare(list(cases))
        for batch_id, (label, _) in cases.items():
            if label.endswith("fetching"):
                self._hold_up_a_file(batch_id)
        for batch_id, end in self._run({i: {"label": label, "hit": hit} for i, (label, hit) in cases.items()}).items():
            if end["ended"] != -signal.SIGKILL:
                self.wrong[batch_id] = f"it was not reached: {end}"
        self._provider.options(latency=_LATENCY)
        if self._operation in (Operation.LET_GO, Operation.LET_GO_EARLY):
            self._provider.finish()
        if self._operation is not Operation.RETRY:  # from here on it is as after `process`
            self._run({i: {"label": "any", "hit": 1 + 5 * number % 43} for number, i in enumerate(cases)}, again=True)
        with BatchService(settings_from(self._options)) as service:
            self._finish(service, list(cases))

    # --- before

    def _prepare(self, ids: list[Id]) -> None:
        self._provider.reset()
        self._provider.options(latency=_LATENCY)
        match self._operation:
            case Operation.OPEN | Operation.CREATE | Operation.PUBLISH | Operation.REMOVE_OLD:
                return
            case Operation.TAKE_OVER:
                self._leave(ids, "before judge", 2)
                for batch_id in ids:
                    part = self._folder / "videos" / batch_id / f"{batch_id}-01.1.part"
                    part.parent.mkdir(exist_ok=True)
                    part.write_bytes(b"half")
            case Operation.CANCEL:
                self._provider.options(latency=_FOR_EVER)
                self._leave(ids, "after acceptance", 2)
                for batch_id in ids:
                    self._provider.fault(on="delete", do="answer", status=409, match=f"{batch_id}: video 1")
            case Operation.CANCEL_STORED:
                self._leave(ids, "after upload", 2)
            case Operation.RETRY:
                self._provider.options(latency=_FOR_EVER)
            case Operation.PROCESS_BADLY:
                for batch_id in ids:
                    self._provider.fault(on="create", do="lose_response", match=f"{batch_id}: video 1")
                    self._provider.fault(on="create", do="lose_request", match=f"{batch_id}: video 3")
                    self._provider.fault(on="content", do="short", match=f"{batch_id}: video 2")
            case Operation.LET_GO | Operation.LET_GO_EARLY:
                self._provider.options(latency=_FOR_EVER)
            case Operation.PAY:
                self._provider.options(prices={"*": _RATE}, tells_price="cost", bills_failed=False)
        with BatchService(
            settings_from(self._options | {"sora_delete_on_cancel": "never", "batch_parallel": 100})
        ) as service:
            for batch_id in ids:
                service.create_batch(self._request(batch_id))
            match self._operation:
                case Operation.RETRY:
                    for batch_id in ids:
                        service.process_batch(batch_id)
                    for batch_id in ids:
                        until(partial(_makes_two, service, batch_id))
                        service.cancel_batch(batch_id)
                    self._provider.options(latency=_LATENCY)
                    self._provider.finish()
                case Operation.DELETE | Operation.DELETE_STORED:
                    for running in [service.process_batch(batch_id) for batch_id in ids]:
                        running.result(PATIENCE)

    def _make_one_to_prune(self, batch_id: Id) -> None:
        with BatchService(settings_from(self._options)) as service:
            service.create_batch(self._request(batch_id))
            service.cancel_batch(batch_id)

    def _make_one_to_remove(self, batch_id: Id) -> None:
        with BatchService(settings_from(self._options)) as service:
            service.create_batch(self._request(batch_id))
            service.process_batch(batch_id).result(PATIENCE)

    def _hold_up_a_file(self, batch_id: Id) -> None:
        """A file that comes at once may be recorded together with its job's `downloading`, which is no step then."""
        self._provider.fault(on="content", do="stall", seconds=_STALL, match=f"{batch_id}: ")

    def _leave(self, ids: list[Id], label: str, hit: int) -> None:
        """Have owners killed."""
        orders = {i: {"do": "process", "request": self._request(i), "label": label, "hit": hit} for i in ids}
        for batch_id, end in self._all(orders).items():
            assert end["ended"] == -signal.SIGKILL, (batch_id, end)

    # --- the processes

    def _run(self, more: dict[Id, Order], *, again: bool = False) -> dict[Id, Any]:
        return self._all({i: self._order(i, again=again) | order for i, order in more.items()})

    def _order(self, batch_id: Id, *, again: bool) -> Order:
        deed = self._operation.value.partition(" ")[0] if "command" in self._operation else self._operation.value
        if self._operation is Operation.OPEN:
            here = f"sqlite:///{self._folder}/{batch_id}.db"
            return {"do": deed, "options": self._options | {"database_url": here}}
        if self._operation in _THEN_MADE and again:
            return {"do": self._deed_of_another(batch_id), "request": self._request(batch_id), "id": batch_id}
        if self._operation in (Operation.LET_GO, Operation.LET_GO_EARLY):
            quiet = {"sora_poll_interval": _FOR_EVER * 1000}
            return {"do": deed, "id": batch_id, "options": self._options | quiet}
        if self._operation is Operation.CREATE:
            return {"do": deed, "request": self._request(batch_id)}
        return {"do": deed, "id": batch_id, "word": _WORD}

    def _deed_of_another(self, batch_id: Id) -> str:
        standing = rows(self._folder, "SELECT status FROM batches WHERE id=?", batch_id)
        if not standing:
            return "create"
        return "retry" if standing == [("cancelled",)] else "take over"

    def _all(self, orders: dict[Id, Order]) -> dict[Id, Any]:
        """Run them, some at a time."""
        ends: dict[Id, Any] = {}
        running: list[tuple[Id, int]] = []
        for batch_id, order in orders.items():
            # Whoever is there sends the DELETEs of all, and prunes for all: one by one, so that each has something to do.
            if len(running) == (1 if self._operation in _OF_ALL else _AT_ONCE):
                self._end(running, ends)
            if self._operation is Operation.PRUNE:
                self._make_one_to_prune(batch_id)
            if self._operation is Operation.REMOVE_OLD:
                self._make_one_to_remove(batch_id)
            environment = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
            always = {"options": self._options, "environment": environment}
            running.append((batch_id, self._drivers.start(**always | order)))
        while running:
            self._end(running, ends)
        return ends

    def _end(self, running: list[tuple[Id, int]], ends: dict[Id, Any]) -> None:
        batch_id, child = running.pop(0)
        ends[batch_id] = self._drivers.end(child)

    # --- after

    def _finish(self, service: BatchService, ids: list[Id]) -> None:
        if self._operation in _THEN_MADE:
            running = {batch_id: self._go_on(service, batch_id) for batch_id in ids}
            judge_made = self._judge_paid if self._operation is Operation.PAY else self._judge_made
            self._each(ids, lambda i: judge_made(service, running[i].result(PATIENCE)))
            service._read(lambda: _check_budgets(service))
            return
        # Those that were on their way from a killed process need not be waited for.
        over = "UPDATE deletes SET due_at=0 WHERE state='out'"
        service._recorder.write(lambda: service._database.execute(over)).result(PATIENCE)
        judge: dict[Operation, Callable[[BatchService, Id], None]] = {
            Operation.OPEN: self._judge_opened,
            Operation.CANCEL: self._judge_cancelled,
            Operation.CANCEL_STORED: self._judge_stored,
            Operation.UPDATE: self._judge_updated,
            Operation.DELETE: self._judge_deleted,
            Operation.DELETE_STORED: self._judge_deleted,
            Operation.REMOVE_OLD: self._judge_removed,
            Operation.PRUNE: self._judge_pruned,
        }
        self._each(ids, lambda i: judge[self._operation](service, i))

    def _each(self, ids: Iterable[Id], judge: Callable[[Id], None]) -> None:
        for batch_id in ids:
            try:
                judge(batch_id)
            except Exception as error:
                self.wrong.setdefault(batch_id, f"{type(error).__name__}: {error}")

    def _go_on(self, service: BatchService, batch_id: Id) -> Any:
        batch = service.create_batch(self._request(batch_id))
        return service.retry_batch(batch_id) if batch.status == "cancelled" else service.process_batch(batch_id)

    def _judge_made(self, service: BatchService, batch: Batch) -> None:
        assert [(job.status, job.error) for job in batch.jobs] == [("completed", None)] * COUNT
        assert batch.status == "completed"
        self._check_paid(batch.id, COUNT)
        assert [each.used_micros for each in service.budgets(batch.id)] == [COUNT * 1_000_000]
        self._check_stored(service, batch)
        names = check_journal(service, batch.id)
        assert (names.count("job.completed"), names.count("batch.completed")) == (COUNT, 1)

    def _judge_paid(self, service: BatchService, batch: Batch) -> None:
        """One video failed and cost nothing, the last one costs what a person said, the others what the server did."""
        assert [job.error and job.error.code for job in batch.jobs] == ["generation_failed", *[None] * (COUNT - 1)]
        self._check_paid(batch.id, COUNT)
        service.settle_cost(service.submissions(batch.id)[-1].id, _WORD, by="ann")
        made, told = COUNT - 1, (COUNT - 2) * _SECONDS * Decimal(_RATE) + Decimal(_WORD)
        used = {each.unit: Decimal(each.used_micros) / 10**6 for each in service.budgets(batch.id)}
        assert used == {"USD": told, "seconds": made * _SECONDS, "videos": made}
        (cost,) = service.get_batch_status(batch.id).cost
        assert (cost.charged_micros, cost.assumed_micros, cost.reserved_micros) == (told * 10**6, 0, 0)
        assert check_journal(service, batch.id)[-1] == "job.settled"

    def _check_stored(self, service: BatchService, batch: Batch) -> None:
        if self._operation in IN_A_BUCKET:
            check_objects(service, batch, self._provider)
        else:
            check_files(batch, self._provider)

    def _check_paid(self, batch_id: Id, count: int) -> None:
        summary = self._provider.summary()
        group = f"{batch_id}: "
        paid = {prompt: n for prompt, n in summary["paid_per_prompt"].items() if prompt.startswith(group)}
        assert list(paid.values()) == [1] * count, paid
        assert summary["max_in_flight_per_group"].get(batch_id, 0) <= LIMIT

    def _judge_opened(self, _: BatchService, batch_id: Id) -> None:
        here = self._options | {"database_url": f"sqlite:///{self._folder}/{batch_id}.db"}
        with BatchService(settings_from(here)) as service:
            service.create_batch(self._request(batch_id))
            assert service.cancel_batch(batch_id).cancelled == COUNT
            assert check_journal(service, batch_id)[-1] == "batch.cancelled"

    def _judge_cancelled(self, service: BatchService, batch_id: Id) -> None:
        """Another try brings it to its end: nothing new was made, and what was made is deleted."""
        summary = service.cancel_batch(batch_id)
        assert (summary.cancelled, len(summary.may_be_charged)) == (COUNT, 2)
        until(lambda: all(_answered(each) for each in service.submissions(batch_id)))
        made = [video for video in self._provider.ledger()["videos"] if video["group"] == batch_id]
        assert [video["status"] for video in made] == ["deleted"] * 2
        self._check_paid(batch_id, 2)
        names = check_journal(service, batch_id)
        assert (names.count("job.cancelled"), names[-1]) == (COUNT, "batch.cancelled")

    def _judge_stored(self, service: BatchService, batch_id: Id) -> None:
        """Another try leaves the recorded objects, and no others."""
        service.cancel_batch(batch_id)
        until(lambda: not service._orphans._threads)
        check_objects(service, service.get_batch_status(batch_id), self._provider)
        assert service._read(lambda: service._storage.doomed.of_batch(batch_id)) == []

    def _judge_updated(self, service: BatchService, batch_id: Id) -> None:
        assert service.get_batch_status(batch_id).metadata in ({}, {"updated": True})
        assert service.update_metadata(batch_id, {"updated": True}).metadata == {"updated": True}

    def _judge_deleted(self, service: BatchService, batch_id: Id) -> None:
        """It is gone, or still there as it was; then it is deleted again."""
        try:
            self._check_stored(service, service.get_batch_status(batch_id))
        except NotFound:
            service.finish_deletions()  # as whoever serves does
        else:
            service.delete_batch(batch_id)
        names = [event.type for event in service.recorded(batch_id)]
        assert (names.count("batch.deleted"), names[-1]) == (1, "batch.deleted")
        assert not service.stores.holds(batch_id)
        assert service._read(lambda: service._storage.batches.hidden(batch_id)) == []
        self._check_paid(batch_id, COUNT)

    def _judge_removed(self, service: BatchService, batch_id: Id) -> None:
        """The next run finishes what was recorded, and leaves nothing."""
        service.remove_files(timedelta(0))
        jobs = service.get_batch_status(batch_id).jobs
        assert [job.video is not None and job.video.removed_at is not None for job in jobs] == [True] * COUNT
        assert not service.stores.holds(batch_id)
        assert service._read(lambda: service._storage.doomed.of_batch(batch_id)) == []

    def _judge_pruned(self, service: BatchService, batch_id: Id) -> None:
        service.prune(timedelta(0), delete_batches=True)
        try:
            service.get_batch_status(batch_id)
        except NotFound:
            return
        raise AssertionError("it was not pruned")


def _makes_two(service: BatchService, batch_id: Id) -> bool:
    return sum(job.status == "generating" for job in service.get_batch_status(batch_id).jobs) == 2


def _check_budgets(service: BatchService) -> None:
    """For every budget, what is used is the sum over the submissions that count against it."""
    ledger = service._storage.ledger
    found = {each[:3]: each.used_micros for each in ledger.all()}
    assert found == {key: ledger.used(Key(*key)) for key in found}


def _answered(submission: SubmissionRecord) -> bool:
    """Whether the server was asked to delete the video: one that it had deleted before is no more (404)."""
    return submission.state == "deleted" or "HTTP 404" in (submission.note or "")


_OF_ALL = {Operation.CANCEL, Operation.PRUNE, Operation.REMOVE_OLD}
"""What these do, they do for all batches."""

_THEN_MADE = {
    Operation.PROCESS_BADLY,
    Operation.LET_GO_EARLY,
    Operation.CREATE,
    Operation.PROCESS,
    Operation.STORE,
    Operation.PAY,
    Operation.TAKE_OVER,
    Operation.LET_GO,
    Operation.LEAVE,
    Operation.RETRY,
}
"""After these a batch is made to its end."""
