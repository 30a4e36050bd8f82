"""The commands that run batches in this process: run, demo, resume, retry."""
# ruff: noqa: FBT002  (a command's options are its parameters)

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actors.cli.options import (
    AnyBatchId,
    FileName,
    Json,
    Output,
    Quiet,
    Shown,
    Simulate,
    Verbose,
    Written,
    spelled_out,
)
from actors.errors import InvalidRequest

if TYPE_CHECKING:
    from actors.cli.session import Session

DEMO: dict[str, Any] = {
    "batch_name": "Nature scenes",
    "videos": [
        {"prompt": "A sunset over the ocean", "duration": 10},
        {"prompt": "A mountain landscape", "duration": 15},
        {"prompt": "City lights at night", "duration": 12},
    ],
}
_CONCURRENCY = 3


@spelled_out(output="metadata", filename="output")
def run(
    written: Written,
    output: Output = None,
    filename: FileName = None,
    web: Shown = None,
    simulate: Simulate = False,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Create a batch and make its videos.

    Exit codes: 0 completed, 1 failed, 3 partial, 4 cancelled, 2 usage or configuration error, 130 interrupted,
    143 terminated. Ctrl-C stops without cancelling the batch; `sora-batch resume` continues it.
    """
    from actors.cli.authoring import requested

    request = requested(replace(written, concurrency=None))
    session = _session(output, filename, simulate=simulate, json=json, quiet=quiet, verbose=verbose, web=web)
    _check_concurrency(written.concurrency)
    session.run_new(request, written.concurrency)


def demo(
    output: Output = None,
    filename: FileName = None,
    web: Shown = None,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Make a sample batch with the simulator.

    Needs no settings and costs nothing: three videos, "Nature scenes", marked as simulated.
    """
    from actors.formats.reading import Request

    session = _session(output, filename, simulate=True, json=json, quiet=quiet, verbose=verbose, web=web)
    session.run_new(Request(DEMO), _CONCURRENCY)


def resume(
    batch_id: AnyBatchId = None,
    output: Output = None,
    filename: FileName = None,
    simulate: Simulate = False,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Resume one unfinished batch, or all.

    Videos that the server is already making are not paid for again.
    Without an ID, --json prints a list of batches. Exit codes: those of `sora-batch run`; with several batches, the
    worst one.
    """
    session = _session(output, filename, simulate=simulate, json=json, quiet=quiet, verbose=verbose)
    session.resume(batch_id)


def _session(
    output: Path | None, filename: str | None, *, simulate: bool, json: bool, quiet: bool, verbose: bool,
    web: str | None = None,
) -> Session:  # fmt: skip
    from actors.cli import session

    return session.Session(output, filename, simulate=simulate, json=json, quiet=quiet, verbose=verbose, web=web)


def _check_concurrency(concurrency: int | None) -> None:
    if concurrency is not None and concurrency < 1:
        raise InvalidRequest(f"--concurrency {concurrency}: must be a whole number of 1 or more")
