"""The options that several commands share, and those that say what a batch shall contain.

Light: importing it must not slow `--help` down; so its annotations are no strings, which would have to be evaluated.
What the options of a batch mean is in `authoring`.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from actors.cli.opening import absent_database
from actors.errors import InvalidRequest, SoraBatchError

_Command = Callable[..., None]
_OFFERED = 1000


Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Log everything, and show the traceback of an error.")]
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
    from storage.database import Database
    from storage.failures import DatabaseError
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


@dataclasses.dataclass(frozen=True)
class Written:
    """What was given on the command line, in the order of `--help`."""

    file: Annotated[
        str | None,
        typer.Argument(
            metavar="FILE|-",
            show_default=False,
            help="Batch file: JSON, YAML, CSV, JSON Lines, or one prompt per line; - for standard input.",
        ),
    ] = None
    prompts: Annotated[
        list[str] | None, typer.Option("--prompt", "-p", metavar="PROMPT", help="Prompt of a video. Repeatable.")
    ] = None
    concurrency: Annotated[int | None, typer.Option("--concurrency", "-c", help="Videos to make at a time.")] = None
    name: Annotated[str | None, typer.Option("--name", help="Batch name.")] = None
    metadata: Metadata = None
    batch_id: Annotated[
        str | None,
        typer.Option("--id", metavar="ID", help="Batch id. An existing batch with the same content is resumed."),
    ] = None
    model: Annotated[str | None, typer.Option("--model", help="Model of videos that name none.")] = None
    size: Annotated[str | None, typer.Option("--size", metavar="WxH", help="Size of videos that name none.")] = None
    duration: Annotated[
        int | None, typer.Option("--duration", metavar="SECONDS", help="Duration of videos that name none.")
    ] = None
    seed: Annotated[
        str | None,
        typer.Option("--seed", metavar="N|random", help="Seed of videos that name none; later takes count up from it."),
    ] = None
    takes: Annotated[int | None, typer.Option("--takes", metavar="N", help="Takes of each video that names none.")] = (
        None
    )
    params: Annotated[
        list[str] | None,
        typer.Option(
            "--param", metavar="NAME=VALUE",
            help="Further field for the server, such as fps=24 or negative_prompt=blur, for videos that don't set it. "
            "A value that parses as JSON is sent as JSON; null omits the field. Repeatable.",
        ),
    ] = None  # fmt: skip
    references: Annotated[
        list[str] | None,
        typer.Option(
            "--input-reference", metavar="PATTERN",
            help="Picture, or quoted pattern such as 'shots/*.png'. Makes each prompt, and each video of FILE that "
            "names no picture, once per picture, with the picture's name in its metadata. Repeatable.",
        ),
    ] = None  # fmt: skip
    defaults: Annotated[
        str | None,
        typer.Option(
            "--defaults", metavar="FILE",
            help="JSON or YAML file of default video fields; the batch file and options take precedence.",
        ),
    ] = None  # fmt: skip
    budget: Annotated[
        str | None,
        typer.Option(
            "--budget", metavar="AMOUNT UNIT",
            help="Most the batch may use: '20 USD', '30 seconds', '5 videos', or several with commas.",
        ),
    ] = None  # fmt: skip
    timeout: Annotated[
        str | None,
        typer.Option(
            "--timeout", metavar="SPAN",
            help="Time limit for each round of the batch, such as 90s or 12h; a bare number is milliseconds; 0: none.",
        ),
    ] = None  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Submitted(Written):
    """The same for a service: whether the batch is there already is its business."""

    batch_id: Annotated[str | None, typer.Option("--id", metavar="ID", help="Batch id.")] = None
