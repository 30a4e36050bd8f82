"""What is told while batches are followed to their end."""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from actors.batch.events import Event
from actors.batch.job_views import Job
from actors.batch.views import Batch
from actors.cli.app import Interruption
from actors.cli.follow import Follower
from actors.cli.view import BatchView, LineShow
from actors.errors import BatchReleased, NotFound, StorageError
from actors.messages import Wait
from actors.service.waiting import RunningBatch


class EndedService:
    """One whose batch has just ended while its last wait is not taken back yet."""

    def __init__(self, events: list[Event]) -> None:
        self._events = events

    def history(self, batch_id: str, from_sequence: int) -> list[Event]:
        return [event for event in self._events if int(event.sequence) >= from_sequence]

    def waits(self, batch_id: str) -> dict[str, Wait]:
        return {"": Wait("rate limited", time.monotonic() + 60)}


class AwayService:
    """One whose database can't be read just now."""

    def history(self, batch_id: str, from_sequence: int) -> list[Event]:
        raise StorageError("the database is away")

    def waits(self, batch_id: str) -> dict[str, Wait]:
        return {"": Wait("the database is away", math.inf)}


def followed(batch: Batch, events: list[Event]) -> list[str]:
    running: Any = Future()
    running.set_result(batch)
    service: Any = EndedService(events)
    stream = io.StringIO()
    Follower(service, LineShow(stream), None).follow([running], [BatchView(batch)], Interruption())
    return [line[9:] for line in stream.getvalue().splitlines()]


def test_nothing_is_said_to_wait_once_the_batch_has_ended(
    make_job: Callable[..., Job], make_batch: Callable[..., Batch], make_event: Callable[..., Event]
) -> None:
    going, ended = make_batch(make_job(1)), make_batch(make_job(1, "completed"), status="completed")
    assert followed(going, [make_event(1, "batch.started", going)])[1].startswith("nature waiting: rate limited")
    assert followed(going, [make_event(1, "batch.completed", ended)]) == ["nature completed 1 of 1 video"]


def test_a_batch_that_fails_hides_no_other(make_job: Callable[..., Job], make_batch: Callable[..., Batch]) -> None:
    lost, ended = RunningBatch("lost"), RunningBatch("nature")
    lost.set_exception(BatchReleased("lost"))
    ended.set_result(make_batch(make_job(1, "completed"), status="completed"))
    views = [BatchView(make_batch(make_job(1), id="lost")), BatchView(ended.result())]
    service: Any = EndedService([])
    follower = Follower(service, LineShow(io.StringIO()), None)
    assert follower.follow([lost, ended], views, Interruption()) == [ended.result()]
    assert list(follower.failures) == ["lost"]


def test_a_batch_that_was_deleted_hides_no_other(
    make_job: Callable[..., Job], make_batch: Callable[..., Batch]
) -> None:
    class Deleted(EndedService):
        def history(self, batch_id: str, from_sequence: int) -> list[Event]:
            raise NotFound("it was deleted")

    ended = RunningBatch("nature")
    ended.set_result(make_batch(make_job(1, "completed"), status="completed"))
    service: Any = Deleted([])
    follower = Follower(service, LineShow(io.StringIO()), None)
    assert follower.follow([ended], [BatchView(ended.result())], Interruption()) == [ended.result()]


def test_why_it_waits_is_said_while_the_database_is_away(
    make_job: Callable[..., Job], make_batch: Callable[..., Batch]
) -> None:
    running: Any = Future()
    running.set_result(make_batch(make_job(1)))
    service: Any = AwayService()
    stream = io.StringIO()
    Follower(service, LineShow(stream), None).follow([running], [BatchView(running.result())], Interruption())
    assert stream.getvalue()[9:] == "nature waiting: the database is away\n"
