"""Files over HTTP: from where a service answers, and from where it redirects to. Blocks."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.client import HTTPException, HTTPResponse
from itertools import count
from typing import TYPE_CHECKING
from urllib.parse import quote, urljoin, urlsplit

from pydantic import ValidationError

from actors.batch.views import Batch
from actors.errors import ErrorCode, SoraBatchError
from actors.sora.failures import retry_after
from storage.timing import backoff
from storage.urls import masked_url

if TYPE_CHECKING:
    from actors.settings import Settings

_TRIES, _FIRST_PAUSE, _LONGEST_PAUSE = 4, 0.5, 20.0
_SILENCE = 30.0
"""Seconds without a byte after which a connection counts as lost."""
_PIECE = 1 << 18
_HOPS = 5
_PORTS = {"http": 80, "https": 443}
_CODES = {401: ErrorCode.AUTHENTICATION, 403: ErrorCode.PERMISSION, 404: ErrorCode.NOT_FOUND, 410: ErrorCode.NOT_FOUND}
_MOST_OF_A_PROBLEM, _MOST_OF_A_BATCH = 1 << 16, 1 << 26


class NotFetched(SoraBatchError):
    """A file can't be fetched over HTTP; the text says why."""

    def __init__(self, message: str, code: ErrorCode, pause: float | None = None, *, passes: bool = False) -> None:
        super().__init__(message, code=code)
        self.pause, self.passes = pause, passes


class HttpFiles:
    """Reads files over HTTP. The token goes to one origin only."""

    def __init__(self, settings: Settings, sleep: Callable[[float], object]) -> None:
        """`sleep`: waits for some seconds; raises to give up."""
        self._settings, self._sleep = settings, sleep

    def read(self, url: str, start: Callable[[], int], restart: Callable[[], None]) -> Iterator[bytes]:
        """The bytes of a file that are still missing. A lost connection is made again, and goes on where it broke off.

        Args:
            url: of the file.
            start: how many bytes are there.
            restart: called if the server only sends the file from its beginning.

        Raises:
            NotFetched: it can't be fetched.
        """
        tries = 0
        while True:
            before = start()
            try:
                yield from self._once(url, before, restart)
            except NotFetched as error:
                tries = 1 if start() - before >= _PIECE else tries + 1  # a line that breaks often, but gets there
                self._wait(error, tries)
            else:
                return

    def batch(self, batch_id: str) -> Batch:
        """A batch, as the service that WEB_PUBLIC_URL names tells of it.

        Raises:
            NotFetched: it can't be asked, or has no such batch.
        """
        url = f"{self._settings.web_public_url}/api/v1/batches/{quote(batch_id, safe='')}"
        for tries in count(1):
            try:
                return self._batch(url)
            except NotFetched as error:
                self._wait(error, tries)
        raise AssertionError

    def _wait(self, error: NotFetched, tries: int) -> None:
        """Wait for the next try.

        Raises:
            NotFetched: there is none.
        """
        if not error.passes or tries >= _TRIES:
            raise error
        pause = backoff(tries - 1, _FIRST_PAUSE, _LONGEST_PAUSE, jitter=0.3)
        self._sleep(pause if error.pause is None else min(error.pause, _LONGEST_PAUSE))

    def _batch(self, url: str) -> Batch:
        try:
            with self._answer(url, 0) as response:
                if response.status != 200:
                    raise _refusal(url, response)
                return Batch.model_validate_json(response.read(_MOST_OF_A_BATCH))
        except ValidationError:
            raise NotFetched(f"{_place(url)} did not answer with a batch", ErrorCode.DOWNLOAD_FAILED) from None
        except (OSError, HTTPException, ValueError) as error:
            raise NotFetched(f"{_place(url)}: {_words(error)}", ErrorCode.NETWORK) from error

    def _once(self, url: str, start: int, restart: Callable[[], None]) -> Iterator[bytes]:
        try:
            with self._answer(url, start) as response:
                if response.status == 416 and start:
                    restart()
                    raise NotFetched(f"{_place(url)} has fewer bytes", ErrorCode.DOWNLOAD_FAILED, 0.0, passes=True)
                if response.status not in (200, 206):
                    raise _refusal(url, response)
                if start and response.status == 200:
                    restart()
                left = int(response.headers.get("Content-Length") or 0)
                while piece := response.read1(_PIECE):  # as it comes, so that a slow one can be interrupted
                    left -= len(piece)
                    yield piece
                if left > 0:
                    raise NotFetched(f"{_place(url)}: the connection broke off", ErrorCode.NETWORK, passes=True)
        except (OSError, HTTPException, ValueError) as error:
            raise NotFetched(f"{_place(url)}: {_words(error)}", ErrorCode.NETWORK, passes=True) from error

    def _answer(self, url: str, start: int) -> HTTPResponse:
        """The answer to a GET, after redirects: each hop gets what belongs to it."""
        own = self._settings.web_public_url or url
        token = self._settings.web_token
        hop = url
        for _ in range(_HOPS):
            request = urllib.request.Request(hop, headers={"User-Agent": "sora-batch"})  # noqa: S310
            if start:
                request.add_header("Range", f"bytes={start}-")
            if token is not None and _origin(hop) == _origin(own):
                request.add_header("Authorization", f"Bearer {token.get_secret_value()}")
            try:
                response: HTTPResponse = self._opener(hop).open(request, timeout=_SILENCE)
            except OSError as error:
                if hop == url:
                    raise
                raise OSError(f"it redirects to {_elsewhere(hop)}: {_words(error)}") from error
            if response.status not in (301, 302, 303, 307, 308):
                return response
            hop = urljoin(hop, response.headers.get("Location") or "")
            response.close()
            if urlsplit(hop).scheme not in _PORTS:
                raise NotFetched(f"{_place(url)} redirects to an address that is not HTTP", ErrorCode.DOWNLOAD_FAILED)
        raise NotFetched(f"{_place(url)} redirects more than {_HOPS} times", ErrorCode.DOWNLOAD_FAILED)

    def _opener(self, url: str) -> urllib.request.OpenerDirector:
        parts = urlsplit(url)
        if parts.scheme not in _PORTS:
            raise NotFetched(f"{_place(url)} is not an HTTP address", ErrorCode.DOWNLOAD_FAILED)
        proxy = self._settings.proxy_for(url)
        opener = urllib.request.OpenerDirector()
        opener.add_handler(urllib.request.ProxyHandler({parts.scheme: proxy} if proxy else {}))
        opener.add_handler(urllib.request.HTTPHandler())
        opener.add_handler(urllib.request.HTTPSHandler(context=self._settings.trust))
        return opener


def _refusal(url: str, response: HTTPResponse) -> NotFetched:
    status = response.status
    passes = status in (408, 425, 429) or status >= 500
    code = _CODES.get(status, ErrorCode.SERVER_ERROR if passes else ErrorCode.DOWNLOAD_FAILED)
    told = ""
    with suppress(OSError, HTTPException, ValueError):
        document = json.loads(response.read(_MOST_OF_A_PROBLEM))
        told = f": {str(document['detail'])[:500]}" if isinstance(document, dict) and document.get("detail") else ""
    hop = response.geturl()
    own = _origin(hop) == _origin(url)
    way_out = "; set WEB_TOKEN to the token of that service" if own and status in (401, 403) else ""
    who = _place(url) if own else f"{_place(url)} redirects to {_elsewhere(hop)}, which"
    text = f"{who} answered with HTTP {status}{told}{way_out}"
    return NotFetched(
        text, code, retry_after({name.lower(): text for name, text in response.headers.items()}), passes=passes
    )


def _place(url: str) -> str:
    """A URL as it is told: without what may be a secret."""
    return masked_url(url)


def _elsewhere(url: str) -> str:
    """The same of where a redirect leads to: its query is a signature."""
    return _place(url).partition("?")[0]


def _origin(url: str) -> tuple[str, str, int | None]:
    parts = urlsplit(url)
    return parts.scheme, (parts.hostname or ""), parts.port or _PORTS.get(parts.scheme)


def _words(error: BaseException) -> str:
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    return str(getattr(reason, "strerror", None) or reason) or type(reason).__name__
