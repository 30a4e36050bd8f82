"""What the commands share: their common options, and how they come to the service.

Light: importing it must not slow `--help` down.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from actors.errors import InvalidRequest

if TYPE_CHECKING:
    from actors.service import BatchService
    from actors.settings import Settings


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
        help="Put each finished file here too, as soon as it is done, under a readable name.",
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
        help="The batch: JSON, YAML, CSV, or one prompt a line; - is standard input.",
    ),
]
Prompts = Annotated[
    list[str] | None, typer.Option("--prompt", "-p", metavar="PROMPT", help="A video to make. Repeatable.")
]
Concurrency = Annotated[int | None, typer.Option("--concurrency", "-c", help="How many videos at once.")]
Name = Annotated[str | None, typer.Option("--name", help="The batch's name.")]
Model = Annotated[str | None, typer.Option("--model", help="For videos that name none.")]
Size = Annotated[str | None, typer.Option("--size", metavar="WxH", help="For videos that name none.")]
Duration = Annotated[int | None, typer.Option("--duration", metavar="SECONDS", help="For videos that name none.")]
Remote = Annotated[
    bool, typer.Option("--remote", help="Through RabbitMQ (AMQP_URL), of a running service; no database is used.")
]
BatchId = Annotated[str, typer.Argument(metavar="ID", help="The batch's id.", show_default=False)]


def prepare(*, verbose: bool, default_level: str = "warning") -> Settings:
    """Read the settings and start logging: at LOG_LEVEL where it is set."""
    from actors.logs import configure, secrets_of
    from actors.settings import load_settings

    settings = load_settings()
    level = settings.log_level if "log_level" in settings.model_fields_set else default_level
    configure("debug" if verbose else level, settings.log_format, secrets_of(settings))
    return settings


@contextmanager
def opened(*, verbose: bool, simulate: bool = False, default_level: str = "warning") -> Iterator[BatchService]:
    """The service, for as long as a command takes."""
    settings = prepare(verbose=verbose, default_level=default_level)
    from actors.service import BatchService

    with BatchService(settings, simulate=simulate) as service:
        yield service


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
    """A sentence on standard error."""
    from actors.cli.text import clean

    typer.echo(f"sora-batch: {clean(text)}", err=True)
