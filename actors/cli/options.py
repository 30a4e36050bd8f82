"""What the commands share: their common options, and how they come to the service.

Light: importing it must not slow `--help` down.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from actors.errors import Conflict, DatabaseUnusable, InvalidRequest, NotFound, SoraBatchError

if TYPE_CHECKING:
    from actors.service import BatchService
    from actors.settings import Settings

USAGE = 2
_OFFERED = 1000


def _verbose(context: typer.Context, value: bool) -> bool:  # noqa: FBT001  (Typer calls it so)
    """It may stand before the command too."""
    return value or bool(context.find_root().params.get("verbose"))


Verbose = Annotated[
    bool,
    typer.Option("--verbose", "-v", callback=_verbose, help="Log everything, and show the traceback of what fails."),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output, nothing else there.")]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="No progress and no table: only the paths of the files, one a line.")
]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output", "-o", metavar="DIR",
        help="Put a copy of each finished file here, as soon as it is done, under a readable name.",
    ),
]  # fmt: skip
Simulate = Annotated[bool, typer.Option("--simulate", help="The built-in simulator makes the videos: nothing is paid.")]
Metadata = Annotated[
    list[str] | None, typer.Option("--metadata", "-m", metavar="KEY=VALUE", help="Metadata of the batch. Repeatable.")
]
File = Annotated[
    str | None,
    typer.Argument(
        metavar="FILE|-",
        show_default=False,
        help="The batch: JSON, YAML, CSV, JSON Lines, or one prompt a line; - is standard input.",
    ),
]
Prompts = Annotated[
    list[str] | None, typer.Option("--prompt", "-p", metavar="PROMPT", help="A video to make. Repeatable.")
]
Concurrency = Annotated[int | None, typer.Option("--concurrency", "-c", help="How many videos at once.")]
Name = Annotated[str | None, typer.Option("--name", help="The batch's name.")]
NewId = Annotated[
    str | None, typer.Option("--id", metavar="ID", help="The batch's id; one that exists is gone on with.")
]
Model = Annotated[str | None, typer.Option("--model", help="For videos that name none.")]
Size = Annotated[str | None, typer.Option("--size", metavar="WxH", help="For videos that name none.")]
Duration = Annotated[int | None, typer.Option("--duration", metavar="SECONDS", help="For videos that name none.")]
Seed = Annotated[
    str | None, typer.Option("--seed", metavar="N|random", help="For videos that name none; takes count on from it.")
]
Takes = Annotated[
    int | None, typer.Option("--takes", metavar="N", help="How many videos of each request, where it does not say.")
]
Params = Annotated[
    list[str] | None,
    typer.Option(
        "--param", metavar="NAME=VALUE",
        help="A further field of the server's, such as fps=24 or negative_prompt=blur, for videos that do not say it. "
        "What parses as JSON is JSON; null leaves a field out. Repeatable.",
    ),
]  # fmt: skip
Defaults = Annotated[
    str | None,
    typer.Option(
        "--defaults", metavar="FILE",
        help="JSON or YAML with fields for videos that do not say them; the batch file and options count more.",
    ),
]  # fmt: skip
Budget = Annotated[
    str | None,
    typer.Option(
        "--budget", metavar="AMOUNT UNIT",
        help="What the batch may use at most: '20 USD', '30 seconds', '5 videos', or several with commas.",
    ),
]  # fmt: skip
References = Annotated[
    list[str] | None,
    typer.Option(
        "--input-reference", metavar="PATTERN",
        help="A picture, or a quoted pattern such as 'shots/*.png': each prompt, and each video of FILE that names no "
        "picture, is made once for each, with the picture's name in its metadata. Repeatable.",
    ),
]  # fmt: skip
FileName = Annotated[
    str | None,
    typer.Option(
        "--filename", metavar="PATTERN",
        help="Names of the files in --output, such as '{index:02} {metadata.product} take {take}': of index, id, "
        "prompt, take, seed and metadata.KEY. The extension is added.",
    ),
]  # fmt: skip
Remote = Annotated[
    bool, typer.Option("--remote", help="Through RabbitMQ (AMQP_URL), of a running service; no database is used.")
]


def batch_ids(incomplete: str) -> list[tuple[str, str]]:
    """For a shell that completes an id: those in the database that begin so, and what they are of."""
    from actors.settings import load_settings
    from storage.changes import Storage
    from storage.database import Database, DatabaseError

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
        return []  # the command itself will say what is wrong
    return [(each.id, f"{each.status.value} {each.name or ''}") for each in batches if each.id.startswith(incomplete)]


_ID: dict[str, Any] = {"metavar": "ID", "show_default": False, "autocompletion": batch_ids}
BatchId = Annotated[str, typer.Argument(help="The batch's id.", **_ID)]
BatchIds = Annotated[list[str], typer.Argument(help="The ids of the batches.", **_ID)]
AnyBatchId = Annotated[str | None, typer.Argument(help="The batch; without it, all unfinished.", **_ID)]


def prepare(*, verbose: bool, default_level: str = "warning") -> Settings:
    """Read the settings, start logging (at LOG_LEVEL where it is set), and warn of misspelt names."""
    from actors.cli.settings_table import misspelt
    from actors.logs import configure
    from actors.settings import load_settings

    settings = load_settings()
    level = settings.log_level if "log_level" in settings.model_fields_set else default_level
    configure("debug" if verbose else level, settings.log_format, settings.secrets)
    for sentence in misspelt():
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
    """The service, for as long as a command takes; `settings`: as `prepare` gave them, where it was called before.

    `looked_for`: what is to be in the database already, such as "batch 'nature'"; it is not created then.

    Raises:
        NotFound: there is no database that could have it.
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
        InvalidRequest: one has no `=`, or no key.
    """
    metadata = {}
    for pair in pairs or []:
        key, equals, value = pair.partition("=")
        if not (key and equals):
            raise InvalidRequest(f"--metadata {pair!r}: expected KEY=VALUE, such as team=blue")
        metadata[key] = value
    return metadata


def warn(text: str) -> None:
    """A sentence on standard error, without secrets: it may quote an error."""
    from actors.cli.text import clean, fold, terminal_width
    from actors.logs import masked

    sentence, width = f"sora-batch: {clean(masked(text))}", terminal_width(sys.stderr)
    typer.echo(sentence if width is None else fold(sentence, width), err=True)
