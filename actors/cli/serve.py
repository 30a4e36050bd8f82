"""The command that serves: takes commands from RabbitMQ and processes queued batches of its provider."""
# ruff: noqa: FBT002  (a command's options are its parameters)

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from actors.cli.app import Interrupted, Interruption
from actors.cli.migrate import require_schema
from actors.cli.opening import opened, prepare, warn
from actors.cli.options import Simulate, Verbose, Web
from actors.cli.web import answering, listening_at
from actors.errors import ErrorCode, SoraBatchError

if TYPE_CHECKING:
    from actors.service import BatchService

_TICK = 0.25


def serve(
    publish_backlog: Annotated[
        bool, typer.Option("--publish-backlog", help="Also publish the events from before AMQP_URL was first set.")
    ] = False,
    simulate: Simulate = False,
    no_migrate: Annotated[
        bool, typer.Option("--no-migrate", help="Refuse a database with an older schema instead of migrating it.")
    ] = False,
    web: Web = None,
    verbose: Verbose = False,
) -> None:
    """Process queued batches until SIGTERM.

    Takes commands from RabbitMQ and publishes events there; without AMQP_URL, processes the batches that others create
    in its database. Several services can share one PostgreSQL and one RabbitMQ. On SIGTERM, takes nothing new and
    releases its batches; another service takes over at once.
    """
    interruption = Interruption()
    settings = listening_at(prepare(verbose=verbose, default_level="info", service=True), web)
    if no_migrate:
        require_schema(settings)
    with interruption, opened(verbose=verbose, simulate=simulate, settings=settings) as service:
        _ = service.provider  # raises where no server is named, before anything is taken
        try:
            with answering(service), _commands(service):
                serving = service.serve(publish_backlog=publish_backlog)
                _announce(service)
                _watch(service, serving, interruption)
        except Interrupted as interrupted:
            warn("stopping; releasing running batches for other services ...", level=logging.INFO, action="stopping")
            if interrupted.exit_code != 128 + signal.SIGTERM:
                raise typer.Exit(interrupted.exit_code) from None


@contextmanager
def _commands(service: BatchService) -> Iterator[None]:
    """Consume commands, if AMQP_URL is set."""
    connection = service.broker
    if connection is None or service.settings.amqp_url is None:
        yield
        return
    from actors.rabbitmq.consumer import CommandConsumers, own_process
    from actors.rabbitmq.handler import CommandHandler

    own_process()
    url, stopping = service.settings.amqp_url.get_secret_value(), threading.Event()
    handle = CommandHandler(service, connection.publish, stopping).handle
    consumers = CommandConsumers(url, handle, service.settings.amqp_queue_type, connection.standing)
    consumers.start()
    try:
        yield
    finally:
        stopping.set()
        consumers.stop()


def _announce(service: BatchService) -> None:
    from storage.secrets import masked_url
    from storage.servers import server_of

    settings = service.settings
    commands = (
        "AMQP_URL is not set: takes no commands and publishes no events"
        if settings.amqp_url is None
        else f"commands and events through {masked_url(settings.amqp_url.get_secret_value())}"
    )
    videos = server_of(service.provider)
    sentence = f"serving: {commands}; database {service.database_place}; videos from {videos}"
    warn(sentence, level=logging.INFO, action="serving")


def _watch(service: BatchService, serving: Future[None], interruption: Interruption) -> None:
    """Wait for a signal, and keep house meanwhile."""
    from actors.cli.housekeeping import Housekeeping

    pause = threading.Event()
    with Housekeeping(service):
        while not serving.done():
            interruption.check()
            pause.wait(_TICK)
    raise SoraBatchError("the dispatcher died: the log says why; start sora-batch serve again", code=ErrorCode.INTERNAL)
