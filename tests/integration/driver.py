"""A program that does something with `BatchService`, and dies of SIGKILL where it is told to.

It reads orders from standard input, one JSON document a line, and forks a child for each, several at a time:

    options   the settings
    request   for create_batch (the same again finds the batch that is there)
    environment   variables, such as those that lead to a bucket
    id        of a batch that is there, instead
    do        process (the default), claim (no wish for it is recorded), forget (no close), or another of DEEDS
    label     `before <point>` or `after <point>`: one of `crash_points`; `any`: whichever is passed
    hit       at which of its hits (1)
    how       kill (the default); stop: say so and stop as on SIGSTOP, until SIGCONT; let_go: let the batch go in order
    until     of one that was stopped: the label up to which its recorder stays busy then
    watch     say at the end which points were passed, and which effects no point names
"""

import asyncio
import contextlib
import json
import os
import select
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pykka

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from actors.errors import BatchReleased
from actors.messages import Lost, Release
from actors.rabbitmq import consumer as consuming
from actors.rabbitmq import handler as handling
from actors.rabbitmq.codec import Message
from actors.rabbitmq.consumer import CommandConsumers, own_process
from actors.rabbitmq.handler import CommandHandler
from actors.rabbitmq.publisher import EventPublisher  # noqa: F401  (what is imported before the fork, no child has to)
from actors.runtime import Runtime  # noqa: F401
from actors.service import BatchService
from actors.supervisor import BatchSupervisor
from storage.recorder import Recorder
from tests.integration import effects
from tests.integration.support import settings_from, until

Order = dict[str, Any]
_PATIENCE = 60
"""Seconds after which a child that hangs is ended, and so found out."""


def main() -> None:
    wake, woken = os.pipe()
    for end in (wake, woken):
        os.set_blocking(end, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(woken)
    orders, children = _Orders(), 0
    while not orders.over or children:
        ready, _, _ = select.select([wake] + [0] * (not orders.over), [], [])
        if 0 in ready:
            for order in orders.read():
                child = os.fork()
                if child == 0:
                    signal.set_wakeup_fd(-1)
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    _child(order)
                children += 1
                _say(started=child)
        if wake in ready:
            os.read(wake, 4096)
            children -= sum(1 for _ in _ended())


class _Orders:
    """The lines of standard input, without waiting for one that is not there yet."""

    def __init__(self) -> None:
        self._rest, self.over = b"", False

    def read(self) -> list[Order]:
        some = os.read(0, 1 << 20)
        self.over = not some
        *lines, self._rest = (self._rest + some).split(b"\n")
        return [json.loads(line) for line in lines]


def _ended() -> Iterator[int]:
    """Wait for those that have ended, and say so."""
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            _say(pid=ended[0], ended=os.waitstatus_to_exitcode(ended[1]))
            yield ended[0]


def _child(order: Order) -> None:
    # The parent's standard input is not ours; and what Python does at its end is to be done.
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    signal.alarm(_PATIENCE)
    os.environ.update(order.get("environment", {}))
    DEEDS[order.get("do", "process")](order)
    sys.exit(0)


def _tell(**words: Any) -> None:
    _say(pid=os.getpid(), **words)


def _say(**words: Any) -> None:
    # One write: parent and children say their own lines on the same pipe.
    os.write(1, (json.dumps(words) + "\n").encode())


# --- what a child does


@contextlib.contextmanager
def _opened(order: Order) -> Iterator[BatchService]:
    """A service, that was watched or killed, closed at its end."""
    service = BatchService(settings_from(order["options"]))
    with _watched(order, lambda: service), service:
        yield service


def _batch(order: Order, service: BatchService) -> str:
    return str(order["id"]) if "id" in order else service.create_batch(order["request"]).id


def _open(order: Order) -> None:
    with _watched(order, lambda: None), BatchService(settings_from(order["options"])):
        pass


def _create(order: Order) -> None:
    with _opened(order) as service:
        service.create_batch(order["request"])


def _process(order: Order) -> None:
    with _opened(order) as service:
        batch_id = _batch(order, service)
        if order["do"] == "process badly":
            _tell_at_the_second_intent(Lost, lambda: pykka.ActorRegistry.broadcast(Lost(), BatchSupervisor))
        running = service._run([batch_id])[0] if order["do"] == "claim" else service.process_batch(batch_id)
        _tell(asked=batch_id)
        with contextlib.suppress(BatchReleased):
            _tell(status=running.result().status)


def _pay(order: Order) -> None:
    with _opened(order) as service:
        batch_id = _batch(order, service)
        service.process_batch(batch_id).result()
        service.settle_cost(service.submissions(batch_id)[-1].id, order["word"], by="ann")


def _forget(order: Order) -> None:
    service = BatchService(settings_from(order["options"]))
    service.process_batch(_batch(order, service))
    _tell(forgotten=True)


def _take_over(order: Order) -> None:
    with _opened(order) as service:
        (running,) = service.resume_batches([_batch(order, service)])
        _tell(status=running.result().status)


def _let_go(order: Order) -> None:
    service = BatchService(settings_from(order["options"]))
    batch_id = _batch(order, service)
    service.process_batch(batch_id)
    until(lambda: sum(job.status == "generating" for job in service.get_batch_status(batch_id).jobs) == 2)
    # Its supervisor has been told so, too, and has handled it.
    service._recorder.write(lambda: None).result()
    for _ in range(3):
        service._started().io.submit(asyncio.sleep(0)).result()
    with _watched(order, lambda: service), service:
        service.let_go(batch_id)


def _let_go_early(order: Order) -> None:
    service = BatchService(settings_from(order["options"]))
    batch_id = _batch(order, service)
    let_go = threading.Thread(target=service.let_go, args=[batch_id])
    with contextlib.ExitStack() as watched:

        def tell() -> None:
            watched.enter_context(_watched(order, lambda: service))
            let_go.start()

        told = _tell_at_the_second_intent(Release, tell)
        with service:
            with contextlib.suppress(BatchReleased):
                service.process_batch(batch_id).result()
            told.wait()
            let_go.join()


def _tell_at_the_second_intent(message: type, tell: Callable[[], object]) -> threading.Event:
    """Have the supervisor told something between the COMMIT of an intent and the answer to it."""
    receive, told, intents = BatchSupervisor.on_receive, threading.Event(), 0

    def receiving(supervisor: BatchSupervisor, received: Any) -> None:
        receive(supervisor, received)
        if isinstance(received, message):
            told.set()

    def passes(side: str, name: str, count: int) -> None:
        nonlocal intents
        if (side, name) == ("after", "intent"):
            before, intents = intents, intents + count
            if before < 2 <= intents:
                tell()
                told.wait()

    BatchSupervisor.on_receive = receiving  # type: ignore[method-assign]
    effects.install(passes)
    return told


def _leave(order: Order) -> None:
    with _opened(order) as service:
        service._started()
        service.let_go(_batch(order, service))


def _cancel(order: Order) -> None:
    with _opened(order) as service:
        _tell(summary=service.cancel_batch(order["id"]).model_dump(mode="json"))


def _retry(order: Order) -> None:
    with _opened(order) as service:
        _tell(status=service.retry_batch(order["id"]).result().status)


def _update(order: Order) -> None:
    with _opened(order) as service:
        service.update_metadata(order["id"], {"updated": True})


def _delete(order: Order) -> None:
    with _opened(order) as service:
        service.delete_batch(order["id"])


def _prune(order: Order) -> None:
    with _opened(order) as service:
        service.prune(timedelta(0), delete_batches=True)
        service.forget_commands(timedelta(0))


def _remove_old(order: Order) -> None:
    with _opened(order) as service:
        service.remove_files(timedelta(0))


def _publish(order: Order) -> None:
    with _watched(order, lambda: None), BatchService(settings_from(order["options"])) as service:
        service.cancel_batch(service.create_batch(order["request"]).id)


def _obey(order: Order) -> None:
    """Take commands until one was handled."""
    handled, stopping = threading.Event(), threading.Event()
    handling.CREATION_PATIENCE = _PATIENCE  # many die one after the other before the batch is created
    consuming._CLOSE_SECONDS = _PATIENCE / 2  # on a busy machine a confirm takes its time
    with _opened(order) as service:
        assert service.broker is not None
        handler = CommandHandler(service, service.broker.publish, stopping)

        def handle(message: Message, since: float | None) -> None:
            try:
                handler.handle(message, since)
            finally:
                handled.set()

        own_process()
        consumers = CommandConsumers(order["options"]["amqp_url"], handle)
        consumers.start()
        handled.wait()
        stopping.set()
        consumers.stop()


DEEDS: dict[str, Callable[[Order], None]] = {
    "open": _open,
    "create": _create,
    "process": _process,
    "process badly": _process,
    "store": _process,
    "pay": _pay,
    "claim": _process,
    "forget": _forget,
    "take over": _take_over,
    "let go": _let_go,
    "let go early": _let_go_early,
    "leave": _leave,
    "cancel": _cancel,
    "cancel stored": _cancel,
    "retry": _retry,
    "update": _update,
    "delete": _delete,
    "delete stored": _delete,
    "remove old": _remove_old,
    "prune": _prune,
    "publish": _publish,
    "command": _obey,
}


# --- where it dies


@contextlib.contextmanager
def _watched(order: Order, service: Callable[[], BatchService | None]) -> Iterator[None]:
    order.setdefault("do", "process")
    if order.get("watch"):
        passed: Counter[str] = Counter()
        unnamed: list[str] = []
        effects.install(lambda side, name, count: passed.update({f"{side} {name}": count}), unnamed.append)
        yield
        _tell(passed=passed, unnamed=unnamed)
        return
    if "label" in order:
        passed = threading.Event()
        _install(order["label"], order.get("hit", 1), _deed(order, service, passed), order.get("until"), passed)
    yield


def _install(label: str, hit: int, deed: Callable[[], None], until: str | None, passed: threading.Event) -> None:
    lock, hits = threading.Lock(), 0

    def passes(side: str, name: str, count: int) -> None:
        nonlocal hits
        if until == f"{side} {name}":
            passed.set()
        if label in {"any", f"{side} {name}"}:
            with lock:
                before, hits = hits, hits + count
            if before < hit <= hits:
                deed()

    effects.install(passes)


def _deed(order: Order, service: Callable[[], BatchService | None], passed: threading.Event) -> Callable[[], None]:
    if "until" not in order:
        passed.set()
    match order.get("how", "kill"):
        case "kill":
            return lambda: os.kill(os.getpid(), signal.SIGKILL)
        case "stop":
            # In the recorder's thread, between two transactions: SQLite's lock is not to be suspended with us.
            return lambda: _stop(service()._recorder, passed)  # type: ignore[union-attr]
        case _:
            return lambda: threading.Thread(target=service().close).start()  # type: ignore[union-attr]


def _stop(recorder: Recorder, passed: threading.Event) -> None:
    woken = threading.Event()

    def stop() -> None:
        _tell(stopped=True)
        # To this very thread: of a signal to the process another one may take notice, while this one goes on.
        signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)
        woken.set()
        passed.wait(_PATIENCE)

    recorder.read(stop)
    woken.wait()


if __name__ == "__main__":
    main()
