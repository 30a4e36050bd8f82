"""The commands that run batches in this process: run, demo, resume."""
# ruff: noqa: FBT002  (a command's options are its parameters)

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from actors.cli.opening import warn
from actors.cli.options import AnyBatchId, FileName, Json, Output, Quiet, Shown, Simulate, Verbose, Written, spelled_out
from actors.errors import InvalidRequest

if TYPE_CHECKING:
    from actors.cli.session import Session
    from actors.formats.reading import Request
    from actors.service import BatchService

DEMO: dict[str, Any] = {
    "batch_name": "Nature scenes",
    "videos": [
        {"prompt": "A sunset over the ocean", "duration": 10},
        {"prompt": "A mountain landscape", "duration": 15},
        {"prompt": "City lights at night", "duration": 12},
    ],
}
_CONCURRENCY = 3
_MANY = 100_000


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
    from actors.cli.session import Session

    request = requested(replace(written, concurrency=None))
    session = Session(output, filename, simulate=simulate, json=json, quiet=quiet, verbose=verbose, web=web)
    _check_concurrency(written.concurrency)
    _make(session, request, written.concurrency)


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
    from actors.cli.session import Session
    from actors.formats.reading import Request

    session = Session(output, filename, simulate=True, json=json, quiet=quiet, verbose=verbose, web=web)
    _make(session, Request(DEMO), _CONCURRENCY)


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
    from actors.cli.follow import viewed
    from actors.cli.session import Session

    session = Session(output, filename, simulate=simulate, json=json, quiet=quiet, verbose=verbose)
    if batch_id is not None:
        with session.service(batch_id) as service:
            view = viewed(service, batch_id)
            session.check_names(key for job in view.jobs.values() for key in job.metadata)
            session.finish(service, service.resume_batches([batch_id]), [view])
    with session.service() as service:
        running = service.resume_batches()
        if not running:
            _tell_what_is_unfinished(service, simulate=simulate)
        session.finish(service, running, [viewed(service, each.batch_id) for each in running], several=True)


def _make(session: Session, request: Request, concurrency: int | None) -> None:
    """Create a batch and run it."""
    from actors.cli.authoring import metadata_keys
    from actors.cli.batch_files import locating
    from actors.cli.follow import viewed

    session.check_names(metadata_keys(request))
    with session.service() as service, session.answering(service):
        with locating(request):
            quoted = service.quote(request) if service.settings.sora_prices else None
            batch = service.create_batch(request)
        view = viewed(service, batch.id)
        session.announce(batch, quoted)
        running = service.process_batch(batch.id, concurrency)
        view.concurrency = concurrency or view.concurrency
        session.finish(service, [running], [view])


def _tell_what_is_unfinished(service: BatchService, *, simulate: bool) -> None:
    """Nothing to resume here: say what is unfinished on other servers or the simulator."""
    from actors.cli.text import count
    from storage.states import BatchStatus

    batches = service.list_batches(BatchStatus.PROCESSING, limit=_MANY)
    simulated = sum(service.is_simulated(batch.id) for batch in batches)
    others = len(batches) - simulated
    if simulated and not simulate:
        unfinished = f"{count(simulated, 'simulated batch')} {_are(simulated)} unfinished"
        warn(f"{unfinished}; resume with: sora-batch resume --simulate")
    elif others and simulate:
        warn(f"{count(others, 'batch')} of a server {_are(others)} unfinished; resume with: sora-batch resume")
    elif others:
        here = service.provider.partition("#")[0]
        warn(
            f"{count(others, 'batch')} of another server {_are(others)} unfinished, none of {here}; "
            "list them with: sora-batch list --status processing"
        )
    else:
        warn(f"nothing to resume in the database {service.database_place}")


def _are(number: int) -> str:
    return "is" if number == 1 else "are"


def _check_concurrency(concurrency: int | None) -> None:
    if concurrency is not None and concurrency < 1:
        raise InvalidRequest(f"--concurrency {concurrency}: must be a whole number of 1 or more")
