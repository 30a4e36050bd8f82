"""The command that creates or migrates the database, and what `serve --no-migrate` asks of it."""
# ruff: noqa: FBT002  (a command's options are its parameters)

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from actors.cli.opening import prepare
from actors.cli.options import Json, Simulate, Verbose
from actors.errors import DatabaseUnusable

if TYPE_CHECKING:
    from actors.batch.restoring import Restored
    from actors.settings import Settings
    from storage.database import Database


def migrate(
    restored: Annotated[
        bool,
        typer.Option(
            "--restored",
            help="The database was restored from a backup: make the outcome of each unfinished video unknown, so that "
            "what was made after the backup is not paid for again. First stop every process that uses the database.",
        ),
    ] = False,
    simulate: Simulate = False,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Create the database, or migrate it to this version's schema.

    Migrations only add: processes of the previous version keep working with the migrated
    database. Every other command migrates too; this one is for `serve --no-migrate`.
    """
    from actors.cli.table import print_json, say
    from storage.database import Database, DatabaseError

    settings = prepare(verbose=verbose)
    try:
        database = Database(settings.database_url)
        try:
            applied = database.open()
            doubted = _doubt(database, settings, simulate=simulate) if restored else None
        finally:
            database.close()
    except DatabaseError as error:
        raise DatabaseUnusable(str(error)) from error
    if json:
        document = {"database": database.place, "applied": applied, "restored": asdict(doubted) if doubted else None}
        print_json(document)
        return
    say(f"database {database.place}: " + (f"applied {', '.join(applied)}" if applied else "the schema is up to date"))
    if doubted is not None:
        say(_sentence(doubted))


def require_schema(settings: Settings) -> None:
    """See that the database has this version's schema, and change nothing.

    Raises:
        DatabaseUnusable: it does not exist, is older or newer, or can't be read.
    """
    from storage.database import Database, DatabaseError

    try:
        database = Database(settings.database_url)
        try:
            database.require_schema()
        finally:
            database.close()
    except DatabaseError as error:
        raise DatabaseUnusable(str(error)) from error


def _doubt(database: Database, settings: Settings, *, simulate: bool) -> Restored:
    import peewee

    from actors.batch.restoring import doubt_unfinished
    from actors.settings.server import SIMULATOR
    from storage.storage import Storage

    def provider() -> str:
        return SIMULATOR if simulate else settings.provider

    try:
        with database.connection(), database.begin():
            return doubt_unfinished(Storage(database), provider, paid_attempts=settings.sora_paid_attempts)
    except peewee.DatabaseError as error:
        raise database.explained(error) from None


def _sentence(restored: Restored) -> str:
    from actors.cli.text import count

    if not restored.batches:
        return "restored: no batch is unfinished"
    return (
        f"restored: {count(restored.batches, 'unfinished batch')}: the outcome of "
        f"{count(restored.unknown, 'video')} is unknown and {count(restored.attached, 'video')} will be fetched by id; "
        "start sora-batch serve, or run sora-batch resume; videos that the server lists are adopted, and the others "
        "fail with submission_unknown until you run sora-batch retry ID --pay-again"
    )
