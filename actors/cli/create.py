"""The commands `create` and `quote`: record a batch without starting it, or show what it would contain or cost."""
# ruff: noqa: FBT002  (a command's options are its parameters)

from __future__ import annotations

import json as json_module
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from actors.cli.opening import opened, prepare, warn
from actors.cli.options import Json, Verbose, Written, spelled_out

if TYPE_CHECKING:
    from actors.batch.quotes import Quote
    from actors.formats.reading import Request


@spelled_out(dry_run="prompts")
def create(
    written: Written,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Show every video the batch would contain. Stores and sends nothing."),
    ] = False,
    json: Json = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print no hint on how to start it.")] = False,
    verbose: Verbose = False,
) -> None:
    """Record a batch without starting it.

    Prints the batch id; `sora-batch resume ID` starts it. With --dry-run, prints each video instead, with defaults,
    matrix, takes and settings applied.
    """
    from actors.cli.authoring import requested

    request = requested(written)
    if dry_run:
        _show(request, json=json, verbose=verbose)
    else:
        _record(request, json=json, quiet=quiet, verbose=verbose)


def _record(request: Request, *, json: bool, quiet: bool, verbose: bool) -> None:
    from actors.cli.batch_files import locating
    from actors.cli.text import count, print_json

    with opened(verbose=verbose) as service, locating(request):
        batch = service.create_batch(request)
    if json:
        print_json(batch.model_dump(mode="json"))
    else:
        typer.echo(batch.id)
    if not quiet:
        warn(f"recorded {count(batch.progress.total, 'video')}; start with: sora-batch resume {batch.id}")


def _show(request: Request, *, json: bool, verbose: bool) -> None:
    from actors.batch.factory import preview
    from actors.batch.requests import BatchVideoRequest
    from actors.cli.batch_files import locating
    from actors.cli.text import print_json, say

    settings = prepare(verbose=verbose)
    with locating(request):
        parsed = BatchVideoRequest.parse(request, max_size=settings.batch_max_size)
        document = preview(parsed, settings)
    if json:
        print_json(document)
        return
    for job in document["jobs"]:
        say("\n".join(_lines(job)))
    say(f"{parsed.size_in_words}{_of_batch(document)}; nothing was recorded or sent")


def _lines(job: Mapping[str, Any]) -> Iterator[str]:
    """A job in a few lines: its prompt, then its other fields."""
    from actors.cli.text import clean

    yield clean(f"{job['index']}  {job['prompt']}")
    asked = [f"{job['duration']} s" if job["duration"] else None, job["size"], job["model"]]
    if job["seed"] is not None:
        asked.append(f"seed {job['seed']}")
    asked.append(f"take {job['take']}")
    yield f"   {clean(', '.join(each for each in asked if each))}"
    files = {"input_reference": job["input_reference"], **job["files"]}
    for title, fields in (("params", job["params"]), ("files", files), ("metadata", job["metadata"])):
        told = ", ".join(f"{name}={_told(value)}" for name, value in fields.items() if value is not None)
        if told:
            yield f"   {title}: {clean(told)}"


def _told(value: Any) -> str:
    return value if isinstance(value, str) else json_module.dumps(value, ensure_ascii=False)


def _of_batch(document: Mapping[str, Any]) -> str:
    from actors.cli.text import clean

    told = [f"{document['concurrency']} at a time"]
    told += [f"at most {each['amount']} {each['unit']}" for each in document["budget"]]
    if document["metadata"]:
        told.append(f"metadata {_told(document['metadata'])}")
    name = f" ({clean(document['name'])})" if document["name"] else ""
    return f"{name}, {clean(', '.join(told))}"


@spelled_out()
def quote(
    written: Written,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Show what a batch would cost at most, per video and in all.

    Prices come from the file that SORA_PRICES names. Stores and sends nothing. An unknown price is shown as such.
    """
    from actors.batch.quotes import quote as quoted
    from actors.cli.authoring import requested
    from actors.cli.batch_files import locating
    from actors.cli.text import print_json

    request = requested(written)
    settings = prepare(verbose=verbose)
    with locating(request):
        result = quoted(request, settings)
    if json:
        print_json(result.model_dump(mode="json"))
    else:
        _print(result)


def _print(result: Quote) -> None:
    from actors.cli.text import print_table, say

    print_table(["#", "video", "at most", "for"], list(_rows(result)), cut=1)
    typer.echo()
    say(result.sentence)


def _rows(result: Quote) -> Iterator[list[str]]:
    from actors.batch.prices import amount

    for video in result.videos:
        price = video.price
        costs = "unknown" if price is None else f"{amount(price.estimated_micros)} {price.currency}"
        said = (f"{video.duration} s" if video.duration else None, video.size, video.model)
        yield [str(video.index), video.prompt, costs, ", ".join(filter(None, said))]
