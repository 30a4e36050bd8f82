"""`doctor`'s checks: whether everything that a batch needs works. Changes nothing, unless `declare`."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from typing import TypeVar

from actors.errors import SettingsError
from actors.needs import Check, Need, bounded, database_obstacle, folder_obstacle, needs, writable
from actors.settings import Settings
from storage.database import Database
from storage.failures import DatabaseError
from storage.migrations import progress_of
from storage.owners import Owners, StoreNotes
from storage.stores import Stores, foreign, scattered
from storage.urls import masked_url
from storage.videos import Marker, marker_in

T = TypeVar("T")
__all__ = ["Check", "all_checks"]
_LONGEST_CHECK = 30.0


def all_checks(settings: Settings, *, declare: bool = False) -> Iterator[Check]:
    """Check everything, one by one. `declare`: declare the exchanges and queues in RabbitMQ."""
    needed: dict[Need, dict[str, Callable[[], Check]]] = {
        Need.DATABASE: {"database": lambda: database(settings)},
        Need.LEASE: {"services": lambda: services(settings)},
        Need.STORE: {
            "VIDEO_DIR": lambda: video_dir(settings),
            **({"VIDEO_STORE": lambda: video_store(settings)} if settings.video_store else {}),
        },
        Need.KEY: {"server": lambda: server(settings)},
        Need.RABBITMQ: {"RabbitMQ": lambda: rabbitmq(settings, declare=declare)},
    }
    others: dict[str, Callable[[], Check]] = {
        "simulator": simulator,
        "prices": lambda: prices(settings),
        "budget": lambda: budget(settings),
    }
    first = needs(settings)
    rest = [need for need in Need if need not in first]
    looks = [needed[need] for need in first] + [others] + [needed[need] for need in rest]
    for name, look in (entry for some in looks for entry in some.items()):
        yield bounded(name, look, _LONGEST_CHECK)


def database(settings: Settings) -> Check:
    """Whether it is reachable, intact, and of this program's version. It is not created."""
    try:
        found = Database(settings.database_url)
        if found.path is not None and not found.path.exists():
            ok, why = writable(found.path.parent)
            return Check("database", ok=ok, message=f"{found.path}: {why or 'will be created on first use'}")
        if (obstacle := database_obstacle(found)) is not None:
            return Check("database", ok=False, message=obstacle)
        schema = found.read(lambda: _schema(found))
        found.close()
    except (DatabaseError, ImportError) as error:
        return Check("database", ok=False, message=str(error))
    return Check("database", ok=schema.ok, message=f"{found.place}: {schema.message}")


def services(settings: Settings) -> Check:
    """Which processes hold a current lease in the database, and so may make videos."""
    try:
        living = _looked_up(settings, lambda it: Owners(it).living() if it.peewee.table_exists("owners") else [])
    except (DatabaseError, ImportError):
        return Check("services", ok=True, message="unknown: the database can't be read")
    if not living:
        return Check("services", ok=True, message="no process has a current lease: none makes videos just now")
    named = ", ".join(f"{owner.host} (pid {owner.pid})" for owner in living)
    return Check("services", ok=True, message=f"with a current lease: {named}")


def _looked_up(settings: Settings, look: Callable[[Database], T]) -> T | None:
    """What a look into the database finds; None: it does not exist."""
    found = Database(settings.database_url)
    if found.path is not None and not found.path.exists():
        return None
    try:
        return found.read(lambda: look(found))
    finally:
        found.close()


def _schema(found: Database) -> Check:
    schema = progress_of(found)
    if schema.newer:
        has = ", ".join(schema.newer)
        return Check("schema", ok=False, message=f"newer than this program (it has {has}); upgrade sora-batch")
    what = f"schema {schema.applied[-1]}" if schema.applied else "no schema yet"
    pending = f", {len(schema.pending)} to be applied on first use" if schema.pending else ""
    return Check("schema", ok=True, message=what + pending)


def video_dir(settings: Settings) -> Check:
    """Whether files can be written there."""
    stores = Stores(settings.video_dir)
    folder, why = stores.folder.root, folder_obstacle(stores, may_be_made=True)
    found = why or ("writable" if folder.is_dir() else "will be created")
    doubts = _doubts(settings, marker_in(folder), str(folder)) if settings.video_store is None else []
    return Check("VIDEO_DIR", ok=why is None, message="; ".join([f"{folder}: {found}", *doubts]))


def _doubts(settings: Settings, marker: Marker | None, place: str) -> list[str]:
    """Whether the store belongs to another database, and whether processes of this one use different stores."""
    if marker is None:
        return []
    try:
        noted = _looked_up(settings, lambda it: (StoreNotes(it).database_id(), StoreNotes(it).of_living()))
    except Exception:  # noqa: BLE001  (another check tells what is wrong with the database, or that it is older)
        return []
    if noted is None:
        return []
    database, living = noted
    return [doubt for doubt in (foreign(marker, database, place), scattered(marker.store, place, living)) if doubt]


def video_store(settings: Settings) -> Check:
    """Whether the store takes files, gives them again, lists and removes them."""
    from actors.stores import stores_of
    from storage.bucket_errors import StoreFault

    try:
        stores = stores_of(settings)
    except SettingsError as error:
        return Check("VIDEO_STORE", ok=False, message=str(error))
    bucket = stores.bucket
    if bucket is None:
        why = folder_obstacle(stores, may_be_made=True)
        doubts = _doubts(settings, marker_in(stores.folder.root), stores.place)
        return Check(
            "VIDEO_STORE", ok=why is None, message="; ".join([f"{stores.place}: {why or 'writable'}", *doubts])
        )
    try:
        doubts = bucket.examine() + _doubts(settings, Marker.parse(bucket.marker()), bucket.uri)
    except StoreFault as fault:
        return Check("VIDEO_STORE", ok=False, message=f"{bucket.uri}: {fault}")
    works = "files can be put, read, listed and removed"
    return Check("VIDEO_STORE", ok=True, message=f"{bucket.uri}: {'; '.join([works, *doubts])}")


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


def prices(settings: Settings) -> Check:
    """Which price a request without a model, a size and a duration would have."""
    from actors.batch.price_files import price_table
    from actors.batch.prices import PER_VIDEO, Asked, UnknownPrice, amount
    from actors.cli.text import count

    if settings.sora_prices is None:
        return Check("prices", ok=True, message="SORA_PRICES is not set: prices are unknown")
    try:
        table = price_table(settings)
    except SettingsError as error:
        return Check("prices", ok=False, message=str(error))
    usual = Asked(model=settings.sora_model, seconds=settings.sora_seconds or 1, size=settings.sora_size)
    price = table.price(usual)
    asked = "a request without a model, a size and a duration costs"
    known = f"{count(len(table), 'model')} in {settings.sora_prices}; {asked}"
    if isinstance(price, UnknownPrice):
        return Check("prices", ok=True, message=f"{known} an unknown price: {price.reason}")
    origin = ", ".join(filter(None, [price.model, price.source, price.as_of and f"as of {price.as_of}"]))
    by_second = settings.sora_seconds is None and PER_VIDEO not in price.fields
    each = f"{price.currency}{' for each second' if by_second else ''}"
    return Check("prices", ok=True, message=f"{known} at most {amount(price.micros)} {each} ({origin})")


def budget(settings: Settings) -> Check:
    """The ceilings that stand in the database, what is left of each, and which differ from SORA_BUDGET."""
    from actors.batch.limits import amount_text, ceiling_text, left_text
    from actors.expectations import read_ceilings
    from storage.ledger import Ledger

    mine = {(each.scope, each.unit): each.micros for each in read_ceilings(settings.sora_budget or "none")}
    try:
        there = _looked_up(settings, lambda it: Ledger(it).current() if it.peewee.table_exists("ceilings") else [])
    except DatabaseError as error:
        return Check("budget", ok=False, message=str(error))
    if there is None:
        written = f"{settings.sora_budget}: will be written on first use" if mine else "SORA_BUDGET is not set"
        return Check("budget", ok=True, message=written)
    told = [left_text(each) for each in there]
    standing = {(each.scope, each.unit): each.ceiling_micros for each in there}
    for (scope, unit), micros in mine.items():
        before = standing.get((scope, unit))
        if before is not None and before != micros:
            told.append(
                f"SORA_BUDGET here says {ceiling_text(micros, unit, scope)}, and another process has written "
                f"{amount_text(before, unit)}: the last one to start wins"
            )
        elif before is None:
            told.append(f"{ceiling_text(micros, unit, scope)} will be written on first use")
    return Check("budget", ok=True, message="; ".join(told) or "no budget is set (SORA_BUDGET)")


def rabbitmq(settings: Settings, *, declare: bool = False) -> Check:
    """Whether it is reachable, what is declared, and who consumes. `declare`: declare what is missing."""
    if settings.amqp_url is None:
        message = "AMQP_URL is not set: takes no commands and publishes no events"
        return Check("RabbitMQ", ok=not declare, message=message)
    import pika

    from actors.cli.broker_checks import look
    from actors.rabbitmq import topology
    from actors.rabbitmq.client.calls import Broker
    from actors.rabbitmq.client.rpc import LOST
    from actors.rabbitmq.refusals import hush

    url = settings.amqp_url.get_secret_value()
    try:
        with hush(), pika.BlockingConnection(topology.connection_parameters(url)) as connection:
            ok, message = look(connection, settings.amqp_queue_type, declare=declare)
    except LOST as error:
        return Check("RabbitMQ", ok=False, message=str(Broker(url).unreachable(error)))
    return Check("RabbitMQ", ok=ok, message=f"{masked_url(url)}: {message}")
