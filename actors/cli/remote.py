"""What a command asks of a service through RabbitMQ, without a database: the `--remote` forms."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from actors.cli.options import prepare
from actors.errors import NotFound, SettingsError

if TYPE_CHECKING:
    from actors.batch.views import Batch, CancellationSummary
    from actors.rabbitmq.client.blocking import BatchClient


def connected(*, verbose: bool) -> BatchClient:
    """A client of the service; the settings are read and logging is started."""
    prepare(verbose=verbose)
    from actors.rabbitmq.client.blocking import BatchClient

    return BatchClient()


def cancel_there(batch_id: str, reason: str | None, *, verbose: bool) -> CancellationSummary:
    """Cancel a batch through RabbitMQ."""
    with connected(verbose=verbose) as client:
        return client.cancel(batch_id, reason)


def delete_there(batch_id: str, *, keep_files: bool, verbose: bool) -> None:
    """Delete a batch through RabbitMQ."""
    with connected(verbose=verbose) as client:
        client.delete(batch_id, keep_files=keep_files)


def status_there(batch_id: str, *, verbose: bool) -> Batch:
    """Ask a service through RabbitMQ for a batch."""
    with connected(verbose=verbose) as client:
        return client.report(batch_id)


@contextmanager
def reporting() -> Iterator[Callable[[str], Batch]]:
    """What asks a service for batches; one connection for all of them."""
    from actors.rabbitmq.client.blocking import BatchClient

    with BatchClient() as client:
        yield client.report


def retry_there(
    batch_id: str, jobs: list[str] | None, changes: dict[str, dict[str, Any]] | None, *, pay_again: bool,
    move_server: bool, verbose: bool, budget: list[dict[str, str]] | None = None, missing: bool = False,
) -> Batch:  # fmt: skip
    """Have a service retry a batch; returns the batch as it is then."""
    with connected(verbose=verbose) as client:
        client.retry(
            batch_id, jobs, changes, pay_again=pay_again, move_server=move_server, budget=budget, missing=missing
        )
        return client.report(batch_id)


@contextmanager
def or_remote(command: str, batch_id: str) -> Iterator[None]:
    """Mention `--remote` in an error if a service may have the batch: it is not in the database, or no server is set.

    Raises:
        NotFound, SettingsError: the same, with how to ask a service.
    """
    from actors.settings import load_settings

    try:
        yield
    except (NotFound, SettingsError) as error:
        unknown = isinstance(error, SettingsError) or "no batch" in str(error)
        if not unknown or load_settings().amqp_url is None:
            raise
        way_out = f"to ask a service through RabbitMQ: sora-batch {command} {batch_id} --remote"
        kind = SettingsError if isinstance(error, SettingsError) else NotFound  # a subclass takes no text
        raise kind(f"{error}; {way_out}") from None
