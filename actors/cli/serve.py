"""The command that serves: takes commands from RabbitMQ, processes queued batches of its provider, and keeps house."""
# ruff: noqa: FBT002  (a command's options are its parameters)

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Self

import typer

from actors.cli.app import Interrupted, Interruption
from actors.cli.database import require_schema
from actors.cli.opening import opened, prepare, warn
from actors.cli.options import Simulate, Verbose, Web
from actors.cli.web import answering, listening_at
from actors.errors import ErrorCode, ServiceClosed, SoraBatchError

if TYPE_CHECKING:
    from actors.service import BatchService

logger = logging.getLogger(__name__)
_TICK = 0.25
_PAUSE = 600.0
"""Seconds between two rounds of housekeeping."""
_END_SECONDS = 5.0


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
                raise


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
    from storage.urls import masked_url, server_of

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
    pause = threading.Event()
    with Housekeeping(service):
        while not serving.done():
            interruption.check()
            pause.wait(_TICK)
    raise SoraBatchError("the dispatcher died: the log says why; start sora-batch serve again", code=ErrorCode.INTERNAL)


class _Stopping(Exception):
    """The service stops: what remains is removed after its next start."""


class Housekeeping:
    """What is removed from time to time, in a thread: old commands, files and histories.

    Runs until it is left. Each kind of thing is removed in small pieces, and what fails is tried again later.
    """

    def __init__(self, service: BatchService) -> None:
        self._service, self._stop = service, threading.Event()
        self._thread = threading.Thread(target=self._run, name="sora-housekeeping", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(_END_SECONDS)

    def _run(self) -> None:
        settings = self._service.settings
        while not self._stop.is_set():
            self._do(
                "batches that are being deleted", "delete", timedelta(0), lambda _: self._service.finish_deletions()
            )
            self._do("old commands of the inbox", "inbox", settings.command_keep, self._service.forget_commands)
            self._do("files (VIDEO_KEEP)", "video_keep", settings.video_keep, self._remove_files)
            self._do("events (HISTORY_KEEP)", "history_keep", settings.history_keep, self._prune)
            # What dies as this process starts is nobody's only when its lease is over.
            self._stop.wait(2 * settings.batch_lease.total_seconds())
            self._do("partial files", "sweep", timedelta(0), lambda _: self._service.sweep_parts())
            self._stop.wait(_PAUSE)

    def _do(self, what: str, action: str, span: timedelta | None, remove: Callable[[timedelta], int]) -> None:
        if span is None or self._stop.is_set():
            return
        try:
            count = remove(span)
        except (_Stopping, ServiceClosed):
            return
        except SoraBatchError as error:
            logger.warning("could not remove %s", what, extra={"action": action, "error": str(error)})
        except Exception:
            logger.exception("could not remove %s", what, extra={"action": action})
        else:
            level = logging.INFO if count else logging.DEBUG
            logger.log(level, "removed %s", what, extra={"action": action, "count": count})

    def _remove_files(self, span: timedelta) -> int:
        return self._service.remove_files(span, progress=self._check)

    def _prune(self, span: timedelta) -> int:
        return self._service.prune(span, progress=self._check).events

    def _check(self, _: object) -> None:
        if self._stop.is_set():
            raise _Stopping
