"""The route to a server: its addresses, and what is sent to it and to nobody else.

A redirect is followed here and not by aiohttp, so that each step is given what belongs to it.
"""

from __future__ import annotations

import aiohttp
from yarl import URL

from actors.headers import BEARER, key_header
from actors.settings import Settings
from storage.secrets import basic_auth, masked_url, without_user

_REDIRECTED = frozenset({301, 302, 303, 307, 308})
_MOST_REDIRECTS = 10
_SCHEMES = frozenset({"http", "https"})


class Route:
    """How one server is reached."""

    def __init__(self, settings: Settings, base_url: str) -> None:
        self._base, _, self._query = without_user(base_url).partition("?")
        self._origin = URL(self._base).origin()
        self.place = masked_url(base_url)
        """The server, for a person."""
        self.headers = _own_headers(settings, base_url)
        """What each request to the server says, and none to anybody else."""

    def url(self, path: str, query: str = "") -> str:
        """The address of one of the server's routes, with the query that each request to it has."""
        parameters = "&".join(filter(None, (query, self._query)))
        return f"{self._base}{path}?{parameters}" if parameters else f"{self._base}{path}"

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
        at = _read(url)
        for _ in range(_MOST_REDIRECTS):
            own = at.origin() == self._origin
            if own and at.user is not None:
                at = at.with_user(None)  # it would be sent beside our own
            headers = {**self.headers, "Accept": accept} if own else {"Accept": accept}
            response = await session.get(at, headers=headers, timeout=timeout, allow_redirects=False)
            location = response.headers.get("Location")
            if not follow or location is None or response.status not in _REDIRECTED:
                return response
            response.release()
            at = _read(location, at)
        raise aiohttp.TooManyRedirects(response.request_info, (response,))


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
