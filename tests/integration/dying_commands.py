"""What commands and publishing are tried on: processes that die one after the other, and one that drains the queue."""

import json
import signal
import threading
from collections import defaultdict
from pathlib import Path
from time import monotonic
from typing import Any

from actors.rabbitmq.connection import Connection
from actors.rabbitmq.consumer import CommandConsumers, own_process
from actors.rabbitmq.handler import CommandHandler
from actors.service import BatchService
from tests.integration.application import Application, Received
from tests.integration.crash_points import Operation
from tests.integration.subscriber import Subscriber, check_told
from tests.integration.support import PATIENCE, Drivers, check_journal, numbered, options_for, settings_from, videos
from tests.provider.client import Provider

Id = str


class DyingOfCommands:
    """Kills the consumer of each sort of command, all sorts side by side, each at a broker's virtual host of its own.

    Each kill has a command of its own; what a consumer left is delivered to the next one too.
    """

    def __init__(self, operation: Operation, provider: Provider, drivers: Drivers, folder: Path, url: str) -> None:
        self._operation, self._drivers = operation, drivers
        self._application = Application(url)
        self._options = options_for(provider.base_url, folder, amqp_url=url)
        self._sent: dict[Id, str] = {}
        """The id of the command about each batch."""
        self.wrong: dict[Id, str] = {}

    def close(self) -> None:
        with self._application:
            pass

    def start(self, batch_id: Id, **order: Any) -> int:
        """Publish a command, and start somebody who obeys it."""
        self._send(batch_id)
        return self._drivers.start(do="command", options=self._options, **order)

    def end(self, batch_id: Id, child: int) -> dict[str, Any]:
        """See that the process was killed."""
        end = self._drivers.end(child)
        if end["ended"] != -signal.SIGKILL:
            self.wrong[batch_id] = f"it was not reached: {end}"
        return end

    def prepare(self, ids: list[Id]) -> None:
        """Make the batches that the commands are about."""
        if self._operation in (Operation.COMMAND_CREATE, Operation.COMMAND_EARLY, Operation.COMMAND_MALFORMED):
            return
        with BatchService(settings_from(self._options)) as service:
            for batch_id in ids:
                service.create_batch(videos(*numbered(1, batch_id), id=batch_id))
                if self._operation is Operation.COMMAND_RETRY:
                    service.cancel_batch(batch_id)

    def _send(self, batch_id: Id) -> None:
        about = {"batch_id": batch_id}
        name, data = {
            Operation.COMMAND_CREATE: ("create", videos("A lake", id=batch_id, process=False)),
            Operation.COMMAND_REFUSED: ("retry", about),
            Operation.COMMAND_EARLY: ("process", about),
        }.get(self._operation, (self._operation.removeprefix("command "), about))
        if self._operation is Operation.COMMAND_MALFORMED:
            self._sent[batch_id] = self._application.send("create", about, specversion="2.0")
        else:
            self._sent[batch_id] = self._application.send(name, data)

    def finish(self) -> None:
        """Have one process obey what is left, and see that each command was done once and answered alike."""
        service = BatchService(settings_from(self._options))
        if self._operation is Operation.COMMAND_EARLY:
            for batch_id in self._sent:
                service.create_batch(videos("A lake", id=batch_id))
        stopping, publisher = threading.Event(), Connection(self._application.url)
        handler = CommandHandler(service, publisher.publish, stopping)
        own_process()
        consumers = CommandConsumers(self._application.url, handler.handle)
        assert service.broker is not None
        service.broker.start()
        consumers.start()
        try:
            told = self._hear(service)
            for batch_id in self._sent:
                try:
                    self._judge(service, batch_id, told)
                except Exception as error:
                    self.wrong.setdefault(batch_id, f"{type(error).__name__}: {error}")
        finally:
            stopping.set()
            consumers.stop()
            publisher.close()
            service.close()

    def _hear(self, service: BatchService) -> list[Received]:
        """All that is told, until every command is answered and every event was there."""
        told: list[Received] = []
        deadline = monotonic() + PATIENCE
        while monotonic() < deadline:
            told += self._application.hear(0.1)
            if set(self._sent.values()) <= _answers(told).keys() and self._all_events(service) <= _events(told):
                break
        return told

    def _all_events(self, service: BatchService) -> set[str]:
        return {json.loads(event.body)["id"] for batch_id in self._sent for event in service.recorded(batch_id)}

    def _judge(self, service: BatchService, batch_id: Id, told: list[Received]) -> None:
        answers = _answers(told)[self._sent[batch_id]]
        assert len({json.dumps([each.document["id"], each.data], sort_keys=True) for each in answers}) == 1, answers
        refused = self._operation in (Operation.COMMAND_REFUSED, Operation.COMMAND_MALFORMED)
        assert answers[0].name == ("command.rejected" if refused else "command.accepted")
        if self._operation is Operation.COMMAND_MALFORMED:
            return
        names = check_journal(service, batch_id)
        assert names == ["batch.created", *_AFTER.get(self._operation, [])], names
        ids = [
            each.document["id"] for each in told if each.document.get("sequence") and each.key.split(".")[2] == batch_id
        ]
        expected = [f"{batch_id}:{number:010d}" for number in range(1, len(names) + 1)]
        assert list(dict.fromkeys(ids)) == expected, ids


_AFTER = {
    Operation.COMMAND_CANCEL: ["job.cancelled", "batch.cancelled"],
    Operation.COMMAND_RETRY: ["job.cancelled", "batch.cancelled", "batch.retried", "job.retried"],
}
"""What is in a batch's journal then."""


def _answers(told: list[Received]) -> dict[str, list[Received]]:
    answers = defaultdict(list)
    for each in told:
        if each.name.startswith("command."):
            answers[each.document["correlationid"]].append(each)
    return answers


def _events(told: list[Received]) -> set[str]:
    return {each.document["id"] for each in told}


class DyingPublisher:
    """Kills processes that record and publish events; one that comes later publishes what they left.

    Attributes:
        wrong: of each batch with which something was wrong, what.
    """

    def __init__(self, provider: Provider, drivers: Drivers, folder: Path, url: str) -> None:
        self._provider, self._drivers, self._folder, self._url = provider, drivers, folder, url
        self.wrong: dict[Id, str] = {}

    def watch(self, batch_id: Id) -> dict[str, Any]:
        """Do it undisturbed: what it passed, and what had no name."""
        return dict(self._drivers.end(self._start(batch_id, watch=True))["said"])

    def kill(self, cases: dict[Id, tuple[str, int]]) -> None:
        """Kill a process for each, one that comes after it, and see that all was published in order."""
        with Subscriber(self._url) as subscriber:
            children = {i: self._start(i, label=label, hit=hit) for i, (label, hit) in cases.items()}
            for batch_id, child in children.items():
                if (end := self._drivers.end(child))["ended"] != -signal.SIGKILL:
                    self.wrong[batch_id] = f"it was not reached: {end}"
            again = [self._start(i, label="any", hit=1 + number) for number, i in enumerate(cases)]
            for child in again:
                self._drivers.end(child)
            for batch_id in cases:
                try:
                    self._finish(subscriber, batch_id)
                except Exception as error:
                    self.wrong.setdefault(batch_id, f"{type(error).__name__}: {error}")

    def _start(self, batch_id: Id, **order: Any) -> int:
        request = videos(*numbered(2, batch_id), id=batch_id)
        return self._drivers.start(do="publish", options=self._options(batch_id), request=request, **order)

    def _options(self, batch_id: Id) -> dict[str, Any]:
        folder = self._folder / batch_id
        if not folder.exists():
            folder.mkdir()
            BatchService(settings_from(options_for(self._provider.base_url, folder))).close()
        return options_for(self._provider.base_url, folder, amqp_url=self._url)

    def _finish(self, subscriber: Subscriber, batch_id: Id) -> None:
        with BatchService(settings_from(self._options(batch_id))) as service:
            service.create_batch(videos(*numbered(2, batch_id), id=batch_id))
            service.cancel_batch(batch_id)
            assert service.broker is not None
            service.broker.start()
            subscriber.hear_ends(batch_id)
            check_told(subscriber, service, batch_id)
            assert check_journal(service, batch_id)[-1] == "batch.cancelled"
