"""`doctor`'s checks: whether everything that a batch needs works. Changes nothing, unless `declare`."""

from __future__ import annotations

import importlib.util
import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from actors.settings import Settings
from storage.database import Database, DatabaseError
from storage.secrets import masked_url

_LONGEST_CHECK = 30.0


@dataclass(frozen=True, slots=True)
class Check:
    """The result of one check."""

    name: str
    ok: bool
    message: str


def all_checks(settings: Settings, *, declare: bool = False) -> Iterator[Check]:
    """Check everything, one by one. `declare`: declare the exchanges and queues in RabbitMQ."""
    looks: dict[str, Callable[[], Check]] = {
        "database": lambda: database(settings),
        "VIDEO_DIR": lambda: video_dir(settings),
        "server": lambda: server(settings),
        "simulator": simulator,
        "RabbitMQ": lambda: rabbitmq(settings, declare=declare),
    }
    for name, look in looks.items():
        yield _bounded(name, look)


def _bounded(name: str, look: Callable[[], Check]) -> Check:
    """The result of a check; a problem, if it takes too long: a host or a disk may never answer."""
    found: list[Check | BaseException] = []

    def run() -> None:
        try:
            found.append(look())
        except BaseException as error:  # noqa: BLE001  (raised in the waiting thread)
            found.append(error)

    thread = threading.Thread(target=run, name=f"doctor-{name}", daemon=True)
    thread.start()
    thread.join(_LONGEST_CHECK)
    if not found:
        return Check(name, ok=False, message=f"no answer within {_LONGEST_CHECK:g} s")
    if isinstance(found[0], BaseException):
        raise found[0]
    return found[0]


def database(settings: Settings) -> Check:
    """Whether it is reachable, intact, and of this program's version. It is not created."""
    try:
        found = Database(settings.database_url)
        if found.path is not None and not found.path.exists():
            ok, why = _writable(found.path.parent)
            return Check("database", ok=ok, message=f"{found.path}: {why or 'will be created on first use'}")
        schema = found.read(lambda: _schema(found))
        found.close()
    except (DatabaseError, ImportError) as error:
        return Check("database", ok=False, message=str(error))
    kept = "" if found.path is None or os.access(found.path, os.W_OK) else "not writable; "
    return Check("database", ok=schema.ok and not kept, message=f"{found.place}: {kept}{schema.message}")


def _schema(found: Database) -> Check:
    status = [migration for _, history in found.migrations() for migration in history]
    applied = [migration.name for migration in status if migration.applied is not None]
    newer = [migration.name for migration in status if migration.path is None]
    if newer:
        return Check(
            "schema", ok=False, message=f"newer than this program (it has {', '.join(newer)}); upgrade sora-batch"
        )
    pending = len(status) - len(applied)
    what = f"schema {applied[-1]}" if applied else "no schema yet"
    return Check("schema", ok=True, message=what + (f", {pending} to be applied on first use" if pending else ""))


def video_dir(settings: Settings) -> Check:
    """Whether files can be written there."""
    folder = Path(settings.video_dir).absolute()
    ok, why = _writable(folder)
    return Check(
        "VIDEO_DIR", ok=ok, message=f"{folder}: {why or ('writable' if folder.is_dir() else 'will be created')}"
    )


def _writable(folder: Path) -> tuple[bool, str]:
    """Whether files, and a folder that does not exist yet, can be created; and why not."""
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not there.is_dir():
        return False, f"{there} is not a folder"
    try:
        with tempfile.TemporaryFile(dir=there):
            return True, ""
    except OSError as error:
        return False, f"{there} is not writable ({error.strerror})"


def server(settings: Settings) -> Check:
    """Whether OPENAI_BASE_URL speaks the Videos API and accepts the key. Sends GETs only: makes nothing."""
    if settings.openai_base_url is None:
        way_out = "set it to a server that speaks the Videos API; without it only --simulate and demo work"
        return Check("server", ok=False, message=f"OPENAI_BASE_URL is not set: {way_out}")
    from actors.cli.server_checks import look

    ok, message = look(settings, settings.openai_base_url)
    return Check("server", ok=ok, message=message)


def simulator() -> Check:
    """PyAV draws the simulated videos. Only the simulator needs it."""
    there = importlib.util.find_spec("av") is not None
    missing = "PyAV is not installed; --simulate and demo need it: pip install 'sora-batch[simulator]'"
    return Check("simulator", ok=True, message="PyAV is installed" if there else missing)


def rabbitmq(settings: Settings, *, declare: bool = False) -> Check:
    """Whether it is reachable, what is declared, and who consumes. `declare`: declare what is missing."""
    if settings.amqp_url is None:
        return Check(
            "RabbitMQ",
            ok=not declare,
            message="AMQP_URL is not set: takes no commands and publishes no events",
        )
    import pika

    from actors.cli.broker_checks import look
    from actors.rabbitmq import topology
    from actors.rabbitmq.client.broker import Broker
    from actors.rabbitmq.client.rpc import LOST
    from actors.rabbitmq.refusals import hush

    url = settings.amqp_url.get_secret_value()
    try:
        with hush(), pika.BlockingConnection(topology.connection_parameters(url)) as connection:
            ok, message = look(connection, settings.amqp_queue_type, declare=declare)
    except LOST as error:
        return Check("RabbitMQ", ok=False, message=str(Broker(url).unreachable(error)))
    return Check("RabbitMQ", ok=ok, message=f"{masked_url(url)}: {message}")
