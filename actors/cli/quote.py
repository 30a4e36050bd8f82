"""The command `quote`: what a request would cost at most."""
# ruff: noqa: FBT002  (a command's options are its parameters)

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import typer

from actors.cli.opening import prepare
from actors.cli.options import Json, Verbose, Written, spelled_out
from actors.errors import InvalidRequest

if TYPE_CHECKING:
    from actors.batch.quotes import Quote


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
    from actors.cli.batch_files import located
    from actors.cli.table import print_json

    request = requested(written)
    settings = prepare(verbose=verbose)
    try:
        result = quoted(request, settings)
    except InvalidRequest as error:
        raise located(error, request) from None
    if json:
        print_json(result.model_dump(mode="json"))
    else:
        _print(result)


def _print(result: Quote) -> None:
    from actors.cli.table import print_table, say

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
