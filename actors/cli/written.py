"""The options that say what a batch shall contain: those of every command that takes a request.

Light: importing it must not slow `--help` down; so its annotations are no strings, which would have to be evaluated.
What the options mean is in `authoring`.
"""

from dataclasses import dataclass
from typing import Annotated

import typer

from actors.cli.options import Metadata


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
