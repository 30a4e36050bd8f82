"""The route to a server and back: its addresses, and what is sent to it and to nobody else.

A redirect is followed here and not by aiohttp, so that each step is given what belongs to it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import aiohttp
from yarl import URL

from actors.errors import SettingsError
from actors.headers import BEARER, key_header
from actors.settings import Settings
from actors.transport import wrong_with
from storage.secrets import basic_auth, masked_url, place_of, without_user

_REDIRECTED = frozenset({301, 302, 303, 307, 308})
_MOST_REDIRECTS = 10
_LARGEST_ANSWER = 64 * 1024 * 1024
"""Bytes of JSON: some servers put a whole film into it."""
_SCHEMES = frozenset({"http", "https"})


async def body_of(response: aiohttp.ClientResponse) -> bytearray:
    """The body of an answer.

    Raises:
        aiohttp.ClientPayloadError: it is larger than any answer has a need of.
    """
    body = bytearray()
    async for piece in response.content.iter_any():
        body += piece
        if len(body) > _LARGEST_ANSWER:
            raise aiohttp.ClientPayloadError(f"the answer exceeds {_LARGEST_ANSWER} bytes")
    return body


class Obstacle(NamedTuple):
    """What a request did not get past."""

    host: str
    """Which host was to be reached."""
    why: str
    """A sentence of which the host is the subject, with the way out."""
    passes: bool
    """Whether it may pass by itself."""


class Route:
    """How one server is reached."""

    def __init__(self, settings: Settings, base_url: str) -> None:
        self._base, _, self._query = without_user(base_url).partition("?")
        self._origin = URL(self._base).origin()
        self.place = masked_url(base_url)
        """The server, for a person."""
        self.headers = _own_headers(settings, base_url)
        """What each request to the server says, and none to anybody else."""
        self._settings = settings
        self.way = self._way(self._base)
        """How aiohttp gets there: the proxy, and what the server's certificate is verified with."""

    def url(self, path: str, query: str = "", *, above: bool = False) -> str:
        """The address of one of the server's routes, with the query that each request to it has.

        `above`: of one beside the API's `/v1`.
        """
        parameters = "&".join(filter(None, (query, self._query)))
        base = self._base.removesuffix("/v1") if above else self._base
        return f"{base}{path}?{parameters}" if parameters else f"{base}{path}"

    @property
    def proxied_plainly(self) -> bool:
        """Whether a proxy may answer in the server's place: of what goes through a tunnel it says nothing."""
        return self._origin.scheme == "http" and "proxy" in self.way

    def without_query(self, location: str) -> str:
        """Where a redirect leads, without the query that was the request's own."""
        return location.removesuffix(f"?{self._query}") if self._query else location

    async def get(
        self,
        session: aiohttp.ClientSession,
        url: str,
        accept: str,
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109  (aiohttp's own)
        *,
        follow: bool = True,
    ) -> aiohttp.ClientResponse:
        """GET; the answer is the caller's to close. On a step that leads elsewhere the server's headers stay behind.

        Raises:
            aiohttp.ClientError: there was no answer, or it leads to where no file or video can be.
        """
        # Of the server's own routes nothing need be read: they are asked for many times a second.
        at: str | URL = url if url.startswith(f"{self._base}/") else _read(url)
        for _ in range(_MOST_REDIRECTS):
            own = isinstance(at, str) or at.origin() == self._origin
            if own and isinstance(at, URL) and at.user is not None:
                at = at.with_user(None)  # it would be sent beside our own
            headers = {**self.headers, "Accept": accept} if own else {"Accept": accept}
            way = self.way if own else self._way_elsewhere(str(at))
            response = await session.get(at, headers=headers, timeout=timeout, allow_redirects=False, **way)
            location = response.headers.get("Location")
            if not follow or location is None or response.status not in _REDIRECTED:
                return response
            response.release()
            at = _read(location, response.url)
        raise aiohttp.TooManyRedirects(response.request_info, (response,))

    def _way(self, url: str) -> dict[str, Any]:
        proxy = self._settings.proxy_for(url)
        way: dict[str, Any] = {} if proxy is None else {"proxy": proxy}
        if any(each.startswith("https:") for each in (url, proxy or "")) and (context := self._settings.trust):
            way["ssl"] = context
        return way

    def _way_elsewhere(self, url: str) -> dict[str, Any]:
        try:
            return self._way(url)
        except SettingsError as error:  # of certificates that the server itself had no need of
            raise aiohttp.ClientError(str(error)) from error

    def obstacle(self, error: BaseException) -> Obstacle | None:
        """The certificate or the proxy that a request did not get past; None: it was something else."""
        match error:
            case aiohttp.ClientConnectorCertificateError():
                why, way_out = wrong_with(error.certificate_error)
                text = f"has a certificate that can't be verified ({why}): {way_out}"
                return Obstacle(error.host, text, passes=False)
            case aiohttp.ClientHttpProxyError():  # only where it was asked for a tunnel, and so of https
                text = f"can't be reached: the proxy {place_of(str(error.request_info.real_url))} {_refusal(error)}"
                return Obstacle("the server", text, passes=error.status >= 500 or error.status == 429)
            case aiohttp.ClientProxyConnectionError():
                proxy = f"{error.host}:{error.port}"
                text = f"can't be reached: no connection to the proxy {proxy} ({error.strerror})"
                return Obstacle("the server", text, passes=True)
            case _:
                return None


def _refusal(error: aiohttp.ClientHttpProxyError) -> str:
    """What a proxy that was asked for a tunnel said."""
    if error.status in (401, 407):  # tinyproxy says 401 to a wrong password
        return f"requires a user and a password (HTTP {error.status}): set HTTPS_PROXY=http://USER:PASSWORD@HOST:PORT"
    said = f"HTTP {error.status} {error.message}".rstrip()
    return f"(HTTPS_PROXY) refused a connection to it ({said}): list the hosts that need no proxy in NO_PROXY"


def _own_headers(settings: Settings, base_url: str) -> dict[str, str]:
    headers, key, user = dict(settings.headers), settings.api_key, basic_auth(base_url)
    # The settings refuse two uses of one header, but the simulator's address has no user.
    name = key_header(settings.sora_auth)
    if key and name:
        headers[name] = f"Bearer {key}" if settings.sora_auth == BEARER else key
    if user:
        headers["Authorization"] = f"Basic {user}"
    return headers


def _read(url: str, base: URL | None = None) -> URL:
    try:
        found = URL(url) if base is None else base.join(URL(url))
        if found.scheme in _SCHEMES and found.host:
            return found
    except ValueError:
        pass
    raise aiohttp.InvalidURL(url)
