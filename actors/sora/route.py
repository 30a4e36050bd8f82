"""The route to a server: its addresses, and the headers that only it may receive.

Redirects are followed here and not by aiohttp, so that each step gets only the headers meant for it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import aiohttp
from yarl import URL

from actors.errors import SettingsError
from actors.settings import Settings
from actors.transport import BEARER, key_header, wrong_with
from storage.urls import basic_auth, masked_url, place_of, without_user

_REDIRECTED = frozenset({301, 302, 303, 307, 308})
_MOST_REDIRECTS = 10
_LARGEST_ANSWER = 64 * 1024 * 1024
"""Bytes of JSON: some servers put a whole video into it."""
_SCHEMES = frozenset({"http", "https"})


async def body_of(response: aiohttp.ClientResponse) -> bytearray:
    """The body of an answer.

    Raises:
        aiohttp.ClientPayloadError: it exceeds the limit.
    """
    body = bytearray()
    async for piece in response.content.iter_any():
        body += piece
        if len(body) > _LARGEST_ANSWER:
            raise aiohttp.ClientPayloadError(f"the answer exceeds {_LARGEST_ANSWER} bytes")
    return body


class Obstacle(NamedTuple):
    """What stopped a request."""

    host: str
    """The host that was to be reached."""
    why: str
    """Continues a sentence whose subject is the host, with the way out."""
    passes: bool
    """Whether it may go away by itself."""


class Route:
    """How to reach one server."""

    def __init__(self, settings: Settings, base_url: str) -> None:
        self._base, _, self._query = without_user(base_url).partition("?")
        self._origin = URL(self._base).origin()
        self.place = masked_url(base_url)
        """The server, for a person."""
        self.headers = _own_headers(settings, base_url)
        """The headers of every request to the server, and of none to any other."""
        self._settings = settings
        self.way = self._way(self._base)
        """aiohttp's arguments: the proxy, and the certificates that verify the server."""

    def url(self, path: str, query: str = "", *, above: bool = False) -> str:
        """The URL of one of the server's routes, with the query that every request has.

        `above`: of a route beside the API's `/v1`.
        """
        parameters = "&".join(filter(None, (query, self._query)))
        base = self._base.removesuffix("/v1") if above else self._base
        return f"{base}{path}?{parameters}" if parameters else f"{base}{path}"

    @property
    def proxied_plainly(self) -> bool:
        """Whether a proxy may answer in the server's place: it can't answer inside a tunnel."""
        return self._origin.scheme == "http" and "proxy" in self.way

    def without_query(self, location: str) -> str:
        """The target of a redirect, without the query of the request itself."""
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
        """GET; the caller closes the answer. A redirect to another origin is followed without the server's headers.

        Raises:
            aiohttp.ClientError: there was no answer, or it leads to an unusable URL.
        """
        # The server's own routes need no parsing: they are requested many times a second.
        at: str | URL = url if url.startswith(f"{self._base}/") else _read(url)
        for _ in range(_MOST_REDIRECTS):
            own = isinstance(at, str) or at.origin() == self._origin
            if own and isinstance(at, URL) and at.user is not None:
                at = at.with_user(None)  # it would be sent in addition to our own
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
        except SettingsError as error:  # of certificates that the server itself does not need
            raise aiohttp.ClientError(str(error)) from error

    def obstacle(self, error: BaseException) -> Obstacle | None:
        """The certificate or proxy that stopped a request; None: it was something else."""
        match error:
            case aiohttp.ClientConnectorCertificateError():
                why, way_out = wrong_with(error.certificate_error)
                text = f"has a certificate that can't be verified ({why}): {way_out}"
                return Obstacle(error.host, text, passes=False)
            case aiohttp.ClientHttpProxyError():  # only for a tunnel, so only for https
                text = f"can't be reached: the proxy {place_of(str(error.request_info.real_url))} {_refusal(error)}"
                return Obstacle("the server", text, passes=error.status >= 500 or error.status == 429)
            case aiohttp.ClientProxyConnectionError():
                proxy = f"{error.host}:{error.port}"
                text = f"can't be reached: no connection to the proxy {proxy} ({error.strerror})"
                return Obstacle("the server", text, passes=True)
            case _:
                return None


def _refusal(error: aiohttp.ClientHttpProxyError) -> str:
    """How a proxy refused a tunnel."""
    if error.status in (401, 407):  # tinyproxy says 401 to a wrong password
        return f"requires a user and a password (HTTP {error.status}): set HTTPS_PROXY=http://USER:PASSWORD@HOST:PORT"
    said = f"HTTP {error.status} {error.message}".rstrip()
    return f"(HTTPS_PROXY) refused a connection to it ({said}): list the hosts that need no proxy in NO_PROXY"


def _own_headers(settings: Settings, base_url: str) -> dict[str, str]:
    headers, key, user = dict(settings.headers), settings.api_key, basic_auth(base_url)
    # The settings reject two uses of one header; the simulator's address has no user.
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
