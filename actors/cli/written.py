"""The options that say what a batch shall contain: those of every command that takes a request.

Light: importing it must not slow `--help` down; so its annotations are no strings, which would have to be evaluated.
What the options mean is in `authoring`.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from actors.cli.options import Metadata

_Command = Callable[..., None]


@dataclass(frozen=True)
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


@dataclass(frozen=True)
class Submitted(Written):
    """The same for a service: whether the batch is there already is its business."""

    batch_id: Annotated[str | None, typer.Option("--id", metavar="ID", help="Batch id.")] = None


def takes_written(**after: str) -> Callable[[_Command], _Command]:
    """Have Typer see the options of a command's first parameter, a `Written`, beside the command's own.

    Args:
        after: for an option of the command's own, the one that it follows in `--help`; it is else one of the last.
    """

    def decorate(command: _Command) -> _Command:
        first, *own = inspect.signature(command, eval_str=True).parameters.values()
        shared = [
            inspect.Parameter(field.name, first.kind, default=field.default, annotation=field.type)
            for field in dataclasses.fields(first.annotation)
        ]
        every = list(shared)
        for each in own:
            names = [other.name for other in every]
            every.insert(names.index(after[each.name]) + 1 if each.name in after else len(every), each)

        @functools.wraps(command)
        def run_command(**given: Any) -> None:
            command(first.annotation(**{each.name: given.pop(each.name) for each in shared}), **given)

        run_command.__signature__ = inspect.Signature(every)  # type: ignore[attr-defined]
        run_command.__annotations__ = {}
        return run_command

    return decorate
