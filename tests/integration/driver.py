"""A program that makes a batch with `BatchService`, and dies of SIGKILL where it is told to.

It reads orders from standard input, one JSON document a line, and forks a child for each:

    options   the settings
    request   for create_batch (the same again finds the batch that is there)
    do        process (the default), resume, cancel, claim (no wish for it is recorded), forget (no close)
    label     `before <point>` or `after <point>`: one of POINTS, wrapped before the product is used
    hit       at which of its hits (1)
    how       kill (the default); stop: say so and stop as on SIGSTOP, until SIGCONT; let_go: let the batch go in order
"""

import contextlib
import functools
import inspect
import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from actors import operations
from actors.broker.publisher import EventPublisher
from actors.dispatcher import Dispatcher
from actors.errors import BatchReleased
from actors.production import Production
from actors.runtime import Runtime  # what is imported before the fork, no child has to import
from actors.service import BatchService
from actors.sora import client as sora_client
from actors.sora.client import SoraClient
from actors.sora.submission import Submitter
from actors.supervisor import BatchSupervisor
from storage.batches import BatchRepository
from storage.changes import Storage
from storage.owners import Owners
from storage.publications import Publications
from storage.submissions import SubmissionRepository
from storage.videos import PartFile
from tests.integration.support import settings_from

Arguments = tuple[Any, ...]


def _always(_: Arguments) -> int:
    return 1


def _moves_jobs_to(status: str) -> Callable[[Arguments], int]:
    """One step may move several jobs: each is a hit."""
    return lambda arguments: sum(job.status == status for job in arguments[1].jobs)


POINTS: dict[str, tuple[Any, str, Callable[[Arguments], int]]] = {
    # the batch: recorded, wanted, claimed, begun
    "create": (operations, "create", _always),
    "want": (operations, "want", _always),
    "renew": (Owners, "renew", _always),
    "claim": (BatchRepository, "claim", _always),
    "begin": (BatchSupervisor, "_begin", _always),
    # a step is written, and then acted on (after its COMMIT)
    "intent": (Storage, "apply", lambda arguments: len(arguments[1].intents)),
    "acceptance": (Storage, "apply", _moves_jobs_to("generating")),
    "fetching": (Storage, "apply", _moves_jobs_to("downloading")),
    "completion": (Storage, "apply", _moves_jobs_to("completed")),
    "closing": (Storage, "apply", lambda arguments: int(arguments[1].closing is not None)),
    "recorded": (BatchSupervisor, "_recorded", _always),
    "assign": (BatchSupervisor, "_assign", _always),
    # one video's way
    "run": (Production, "run", _always),
    "post": (SoraClient, "create", _always),
    "first byte": (sora_client._Body, "write_with_length", _always),
    "judge": (SoraClient, "_judge", _always),
    "bind": (SubmissionRepository, "bind", _always),
    "bound": (Submitter, "_bind", _always),
    "look": (SoraClient, "retrieve", _always),
    "open": (PartFile, "open", _always),
    "write": (PartFile, "write", _always),
    "flush": (PartFile, "flush", _always),
    "publish": (PartFile, "publish", _always),
    "discard": (PartFile, "discard", _always),
    # its events
    "fresh": (EventPublisher, "_take_fresh", _always),
    "confirm": (EventPublisher, "_settled", _always),
    "mark": (Publications, "mark", _always),
    "told": (Dispatcher, "_supervisor_ended", _always),
    "close": (Runtime, "close", _always),
}


def main() -> None:
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            _child(json.loads(line))
        _say(pid=child)
        _, status = os.waitpid(child, 0)
        _say(ended=os.waitstatus_to_exitcode(status))


def _child(order: dict[str, Any]) -> None:
    # The parent's standard input is not ours; and what Python does at its end is to be done.
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    if order.get("do") == "cancel":
        _say(**_cancel(order))
    else:
        _make(order)
    sys.exit(0)


def _make(order: dict[str, Any]) -> None:
    service = BatchService(settings_from(order["options"]))
    if "label" in order:
        _install(order["label"], order.get("hit", 1), _deed(order, service))
    batch_id = order["id"] if "id" in order else service.create_batch(order["request"]).id
    match order.get("do", "process"):
        case "resume":
            (running,) = service.resume_batches([batch_id])
        case "claim":
            (running,) = service._run([batch_id])
        case _:
            running = service.process_batch(batch_id)
    if order.get("do") == "forget":
        _say(forgotten=True)
        return
    _say(asked=batch_id)
    with contextlib.suppress(BatchReleased):
        _say(status=running.result().status)
    service.close()


def _cancel(order: dict[str, Any]) -> dict[str, Any]:
    with BatchService(settings_from(order["options"])) as service:
        return {"summary": service.cancel_batch(order["id"]).model_dump(mode="json")}


def _deed(order: dict[str, Any], service: BatchService) -> Callable[[], None]:
    match order.get("how", "kill"):
        case "kill":
            return lambda: os.kill(os.getpid(), signal.SIGKILL)
        case "stop":
            # In the recorder's thread, between two transactions: SQLite's lock is not to be suspended with us.
            return lambda: service._recorder.read(_stop).result()
        case _:
            return lambda: threading.Thread(target=service.close).start()


def _stop() -> None:
    _say(stopped=True)
    os.kill(os.getpid(), signal.SIGSTOP)


def _install(label: str, hit: int, deed: Callable[[], None]) -> None:
    side, point = label.split(" ", 1)
    owner, name, counts = POINTS[point]
    original = getattr(owner, name)
    hits = 0

    def at(where: str, arguments: Arguments) -> None:
        nonlocal hits
        if where == side and (more := counts(arguments)):
            before, hits = hits, hits + more
            if before < hit <= hits:
                deed()

    if inspect.iscoroutinefunction(original):

        @functools.wraps(original)
        async def waiting(*arguments: Any, **named: Any) -> Any:
            at("before", arguments)
            answer = await original(*arguments, **named)
            at("after", arguments)
            return answer

        setattr(owner, name, waiting)
        return

    @functools.wraps(original)
    def wrapped(*arguments: Any, **named: Any) -> Any:
        at("before", arguments)
        answer = original(*arguments, **named)
        at("after", arguments)
        return answer

    setattr(owner, name, wrapped)


def _say(**words: Any) -> None:
    # One write: the parent says its own lines on the same pipe.
    os.write(1, (json.dumps(words) + "\n").encode())


if __name__ == "__main__":
    main()
