"""The commands that look after the database: migrate, prune."""
# ruff: noqa: FBT002  (a command's options are its parameters)

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from actors.cli.opening import opened, prepare, warn
from actors.cli.options import Json, Simulate, Verbose
from actors.errors import DatabaseUnusable, InvalidRequest

if TYPE_CHECKING:
    from actors.batch.cleanup import PruneReport
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
    from actors.cli.text import print_json, say

    settings = prepare(verbose=verbose)
    with _database(settings) as database:
        applied = database.open()
        doubted = _doubt(database, settings, simulate=simulate) if restored else None
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
    from storage.migrations import check_schema

    with _database(settings) as database:
        check_schema(database)


@contextmanager
def _database(settings: Settings) -> Iterator[Database]:
    from storage.database import Database
    from storage.failures import DatabaseError

    try:
        with closing(Database(settings.database_url)) as database:
            yield database
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


def prune(
    older_than: Annotated[
        str,
        typer.Option(
            "--older-than", metavar="SPAN", help="Only batches that ended longer ago than this: 30d, 12h, 90m."
        ),
    ] = "30d",
    batches: Annotated[
        bool, typer.Option("--batches", help="Also remove the batches, not only their history.")
    ] = False,
    files: Annotated[bool, typer.Option("--files", help="Also remove the video files of these batches.")] = False,
    json: Json = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
    verbose: Verbose = False,
) -> None:
    """Remove the history of old batches.

    Keeps video files unless told otherwise. May take a while, without blocking others; after an interrupt, run it again
    to continue.
    """
    from actors.cli.text import print_json, say

    span = parse_span(older_than)
    with opened(verbose=verbose) as service, _counting(shown=not (json or quiet)) as told:
        report = service.prune(span, delete_batches=batches, files=files, progress=told)
        place = service.database_place
    if json:
        print_json({"events": report.events, "batches": report.batches, "files": report.files})
    else:
        say(f"removed {_removed(report)} from {place}")


@contextmanager
def _counting(*, shown: bool) -> Iterator[Callable[[PruneReport], object]]:
    """Show on a terminal how much was removed; say so on an interrupt."""
    last: list[PruneReport] = []
    try:
        if not (shown and sys.stderr.isatty()):
            yield last.append
            return
        from rich.console import Console

        with Console(stderr=True).status("removing ...") as status:

            def tell(report: PruneReport) -> None:
                last[:] = [report]
                status.update(f"removed {_removed(report)} ...")

            yield tell
    except KeyboardInterrupt:
        warn(f"interrupted: removed {_removed(last[-1]) if last else 'nothing'}; run it again to continue")
        raise


def _removed(report: PruneReport) -> str:
    from actors.cli.text import count

    more = [count(report.files, "file")] if report.files else []
    more += [count(report.batches, "batch")] if report.batches else []
    return " and ".join([count(report.events, "event"), *more])


def parse_span(text: str) -> timedelta:
    """Read `30d`, `12h`, `90m`, `45s` or `2w`.

    Raises:
        InvalidRequest: it is none of them.
    """
    from actors.expectations import span_of

    found = span_of(text)
    if found is None:
        raise InvalidRequest(f"{text!r} is not a duration: write a number and s, m, h, d or w, such as 30d")
    return found
