"""Shared by the commands: common options, and how they open the service.

Light: importing it must not slow `--help` down.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from actors.errors import Conflict, DatabaseUnusable, InvalidRequest, NotFound, SettingsError, SoraBatchError

if TYPE_CHECKING:
    from actors.service import BatchService
    from actors.settings import Settings

_Command = Callable[..., None]
USAGE = 2
_OFFERED = 1000


def _verbose(context: typer.Context, value: bool) -> bool:  # noqa: FBT001  (Typer calls it so)
    """It is also accepted before the command."""
    return value or bool(context.find_root().params.get("verbose"))


Verbose = Annotated[
    bool,
    typer.Option("--verbose", "-v", callback=_verbose, help="Log everything, and show the traceback of an error."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else on standard output.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print only the paths of the files, one per line.")]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output", "-o", metavar="DIR",
        help="Copy each file here, under a readable name, as soon as it is finished.",
    ),
]  # fmt: skip
Simulate = Annotated[bool, typer.Option("--simulate", help="Use the built-in simulator: costs nothing.")]
Web = Annotated[
    str | None,
    typer.Option(
        "--web",
        metavar="[HOST:]PORT",
        help="Answer HTTP there: the page, the API, health and metrics. Default: WEB_LISTEN.",
    ),
]
Shown = Annotated[
    str | None,
    typer.Option(
        "--web", metavar="[[HOST:]PORT]",
        help="Show the batch in a browser, there or at a free port of this machine, until Ctrl-C.",
    ),
]  # fmt: skip
Metadata = Annotated[
    list[str] | None, typer.Option("--metadata", "-m", metavar="KEY=VALUE", help="Batch metadata. Repeatable.")
]
NewBudget = Annotated[
    str | None,
    typer.Option(
        "--budget", metavar="AMOUNT UNIT",
        help="Most the batch may use from now on, in all, such as '40 USD'; 'none' removes its budget.",
    ),
]  # fmt: skip
FileName = Annotated[
    str | None,
    typer.Option(
        "--filename", metavar="PATTERN",
        help="Pattern of file names in --output, such as '{index:02} {metadata.product} take {take}'. Placeholders: "
        "index, id, prompt, take, seed, metadata.KEY. The extension is added.",
    ),
]  # fmt: skip
Remote = Annotated[
    bool, typer.Option("--remote", help="Ask a running service through RabbitMQ (AMQP_URL); uses no database.")
]


def batch_ids(incomplete: str) -> list[tuple[str, str]]:
    """For shell completion: ids in the database with this beginning, with state and name."""
    from actors.settings import load_settings
    from storage.database import Database, DatabaseError
    from storage.storage import Storage

    try:
        settings = load_settings()
        if absent_database(settings) is not None:
            return []
        database = Database(settings.database_url)
        try:
            batches = database.read(lambda: Storage(database).batches.find(limit=_OFFERED))
        finally:
            database.close()
    except (SoraBatchError, DatabaseError):
        return []  # the command itself reports the error
    return [(each.id, f"{each.status.value} {each.name or ''}") for each in batches if each.id.startswith(incomplete)]


_ID: dict[str, Any] = {"metavar": "ID", "show_default": False, "autocompletion": batch_ids}
BatchId = Annotated[str, typer.Argument(help="Batch id.", **_ID)]
BatchIds = Annotated[list[str], typer.Argument(help="Batch ids.", **_ID)]
AnyBatchId = Annotated[str | None, typer.Argument(help="Batch id; without it, all unfinished batches.", **_ID)]


def spelled_out(**after: str) -> Callable[[_Command], _Command]:
    """Have Typer see the fields of the one parameter that is a dataclass of options, in the place of it.

    Args:
        after: for an option of the command's own that stands between them in `--help`, the one that it follows.
    """

    def decorate(command: _Command) -> _Command:
        own = inspect.signature(command, eval_str=True).parameters
        group = next(each for each in own.values() if dataclasses.is_dataclass(each.annotation))
        kind = cast("type[object]", group.annotation)
        fields = inspect.signature(kind, eval_str=True).parameters
        every: dict[str, inspect.Parameter] = {}
        for each in own.values():
            every |= fields if each is group else {each.name: each}
        order = [name for name in every if name not in after]
        for name, before in after.items():
            order.insert(order.index(before) + 1, name)

        @functools.wraps(command)
        def run_command(**given: Any) -> None:
            command(**{group.name: kind(**{name: given.pop(name) for name in fields})}, **given)

        # By keyword: a field with a default may stand before an option without one.
        shown = [every[name].replace(kind=inspect.Parameter.KEYWORD_ONLY) for name in order]
        run_command.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]
        run_command.__annotations__ = {}  # else Typer would evaluate the command's once more
        return run_command

    return decorate


def prepare(*, verbose: bool, default_level: str = "warning", service: bool = False) -> Settings:
    """Read the settings, start logging (at LOG_LEVEL where it is set), and warn of misspelt names.

    `service`: with LOG_FORMAT=json each line on standard error is JSON.
    """
    from actors.cli.settings_table import as_written, known_secrets, misspelt
    from actors.logs import configure
    from actors.secret_files import readable_by_others
    from actors.settings import load_settings

    try:
        settings = load_settings()
    except SettingsError:
        if service and (as_written("LOG_FORMAT") or "").lower() == "json":
            configure(default_level, "json", known_secrets(None), service=True)
        raise
    level = settings.log_level if "log_level" in settings.model_fields_set else default_level
    configure("debug" if verbose else level, settings.log_format, settings.secrets, service=service)
    for sentence in (*misspelt(), *readable_by_others(settings)):
        warn(sentence)
    return settings


@contextmanager
def opened(
    *,
    verbose: bool,
    simulate: bool = False,
    default_level: str = "warning",
    looked_for: str | None = None,
    settings: Settings | None = None,
) -> Iterator[BatchService]:
    """The service, open for the duration of a command; `settings`: from an earlier call of `prepare`.

    `looked_for`: what must already be in the database, such as "batch 'nature'"; no database is created then.

    Raises:
        NotFound: the database does not exist.
    """
    settings = settings or prepare(verbose=verbose, default_level=default_level)
    absent = absent_database(settings) if looked_for is not None else None
    if absent is not None:
        raise NotFound(f"there is no {looked_for} in the database {absent} (the database does not exist yet)")
    from actors.service import BatchService

    with BatchService(settings, simulate=simulate) as service:
        yield service


def absent_database(settings: Settings) -> str | None:
    """Where the database would be, if it is a file that does not exist."""
    from storage.database import Database, DatabaseError

    try:
        path = Database(settings.database_url).path
    except DatabaseError as error:
        raise DatabaseUnusable(str(error)) from error
    return str(path) if path is not None and not path.exists() else None


def exit_code(error: Exception) -> int:
    """The exit code of a command that ends with an error."""
    return USAGE if isinstance(error, InvalidRequest | NotFound | Conflict | DatabaseUnusable) else 1


def parse_metadata(pairs: list[str] | None) -> dict[str, str]:
    """Read `KEY=VALUE` pairs.

    Raises:
        InvalidRequest: one has no `=` or no key.
    """
    metadata = {}
    for pair in pairs or []:
        key, equals, value = pair.partition("=")
        if not (key and equals):
            raise InvalidRequest(f"--metadata {pair!r}: expected KEY=VALUE, such as team=blue")
        metadata[key] = value
    return metadata


def warn(text: str, *, level: int = logging.WARNING, action: str | None = None) -> None:
    """Print a sentence on standard error, with secrets masked: it may quote an error.

    `level`, `action`: of the line of the log that it is, where a service logs JSON.
    """
    from actors.cli.text import clean, fold, terminal_width
    from actors.logs import masked, tell

    if tell(text, level, action):
        return
    sentence, width = f"sora-batch: {clean(masked(text))}", terminal_width(sys.stderr)
    typer.echo(sentence if width is None else fold(sentence, width), err=True)
