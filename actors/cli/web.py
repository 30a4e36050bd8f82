"""What a command answers browsers and programs with, beside its own work; and the command that does nothing else."""
# ruff: noqa: FBT002  (a command's options are its parameters)

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from actors.cli.app import Interrupted, Interruption
from actors.cli.opening import opened, prepare, warn
from actors.cli.options import Simulate, Verbose
from actors.errors import InvalidRequest

if TYPE_CHECKING:
    from actors.service import BatchService
    from actors.settings import Settings

_TICK = 0.25


def web(
    listen: Annotated[
        str | None,
        typer.Argument(
            metavar="[HOST:]PORT", show_default=False,
            help="Where to listen. Default: WEB_LISTEN, or a free port of this machine.",
        ),
    ] = None,
    no_open: Annotated[bool, typer.Option("--no-open", help="Open no browser.")] = False,
    simulate: Simulate = False,
    verbose: Verbose = False,
) -> None:  # fmt: skip
    """Show batches in a browser and answer the HTTP API, without making videos.

    Opens the page where there is a browser, and answers until Ctrl-C or SIGTERM. What is created or retried there is
    queued: sora-batch serve makes it. --simulate queues it for sora-batch serve --simulate.
    """
    settings = prepare(verbose=verbose, default_level="warning", service=True)
    settings = listening_at(settings, listen or "", "[HOST:]PORT")
    with Interruption() as interruption, opened(verbose=verbose, simulate=simulate, settings=settings) as service:
        try:
            with answering(service, makes_videos=False) as url:
                assert url is not None
                if not no_open:
                    open_browser(url)
                wait_for(interruption)
        except Interrupted as interrupted:
            if interrupted.exit_code != 128 + signal.SIGTERM:
                raise


def listening_at(settings: Settings, place: str | None, named: str = "--web") -> Settings:
    """The settings, with the place that is given; checked before a database is made or opened.

    Args:
        settings: as they were read.
        place: "" is WEB_LISTEN, else a free port of this machine; None: WEB_LISTEN, else none at all.
        named: how the command names the place.

    Raises:
        InvalidRequest: it is no place to listen at.
        SettingsError: other machines could ask there, and need no token.
    """
    from actors.settings.groups import read_listen

    if place:
        try:
            read_listen(place)
        except ValueError as error:
            raise InvalidRequest(f"{named} {place!r}: {error}") from None
        settings = settings.model_copy(update={"web_listen": place})
    elif place is not None and settings.web_listen is None:
        settings = settings.model_copy(update={"web_listen": "0"})
    if settings.web_listen is not None:
        from actors.web.listener import checked_address

        checked_address(settings.web_listen, _token(settings))
    return settings


def _token(settings: Settings) -> str | None:
    return settings.web_token.get_secret_value() if settings.web_token else None


@contextmanager
def answering(service: BatchService, *, makes_videos: bool = True, quietly: bool = False) -> Iterator[str | None]:
    """Answer HTTP, where a port is named; gives the URL, and says it unless `quietly`."""
    settings = service.settings
    if settings.web_listen is None:
        yield None
        return
    from actors.web.listener import Listener

    listener = Listener(service, settings.web_listen, _token(settings), makes_videos=makes_videos)
    if not quietly:
        sentence = f"page at {listener.url}/; health and metrics at {listener.url}/livez, /readyz and /metrics"
        warn(sentence, level=logging.INFO, action="listening")
    try:
        yield listener.url
    finally:
        listener.close()


def open_browser(url: str) -> None:
    """Open a page, where a person sits before a screen: elsewhere a browser of the terminal would take it over."""
    has_screen = sys.platform == "darwin" or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
    if has_screen and sys.stderr.isatty():
        import webbrowser

        webbrowser.open(url)


def wait_for(interruption: Interruption) -> None:
    """Wait for a signal.

    Raises:
        Interrupted: it came.
    """
    pause = threading.Event()
    while True:
        interruption.check()
        pause.wait(_TICK)
