"""Logging in from a browser: a form with the token, and a cookie for it. The pages around them are the page's."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from aiohttp import web

from actors.web.bodies import arriving
from actors.web.handlers import changes_nothing, public
from actors.web.problems import refused
from actors.web.security import SESSION, SESSION_SECONDS, Failures, too_many

if TYPE_CHECKING:
    from actors.web.handlers import Site

_FORM_BYTES = 16 * 1024


def routes(site: Site) -> Iterable[web.RouteDef]:
    """`POST /login` with the form fields `token` and `next`, and `POST /logout`."""
    sessions = Sessions(site)
    return [web.post("/login", sessions.login), web.post("/logout", sessions.logout)]


class Sessions:
    """Begins and ends sessions."""

    def __init__(self, site: Site) -> None:
        self._access, self._failures = site.access, Failures()

    @public
    @changes_nothing
    async def login(self, request: web.Request) -> web.StreamResponse:
        """Give the cookie for the token, and go on to `next`, a path of this service."""
        if request.content_type != "application/x-www-form-urlencoded":
            raise refused(415, "send the fields token and next as application/x-www-form-urlencoded")
        if (request.content_length or 0) > _FORM_BYTES:
            raise refused(413, f"the form has {request.content_length} bytes; at most {_FORM_BYTES} are accepted")
        async with arriving():
            form = await request.post()
        there = see_other(_own_path(str(form.get("next", ""))))
        if self._access.token is None:
            return there
        peer = self._access.peer_of(request)
        wait = self._failures.wait(peer)
        if wait > 0:
            raise too_many(wait)
        if not self._access.is_token(str(form.get("token", "")).strip()):
            self._failures.note(peer)
            raise refused(401, "the token is wrong: enter the service's WEB_TOKEN")
        there.set_cookie(
            SESSION, self._access.session(), max_age=SESSION_SECONDS, path="/", httponly=True, samesite="Lax",
            secure=_is_secure(request),
        )  # fmt: skip
        return there

    @public
    @changes_nothing
    async def logout(self, request: web.Request) -> web.StreamResponse:
        """Take the cookie back."""
        there = see_other("/login" if self._access.token is not None else "/")
        there.del_cookie(SESSION, path="/", httponly=True, samesite="Lax", secure=_is_secure(request))
        return there


def see_other(path: str) -> web.Response:
    """Lead on after a form; unlike aiohttp's own, this may be returned, and carry a cookie."""
    return web.Response(status=303, headers={"Location": path})


def _own_path(path: str) -> str:
    """A path of this service: nobody is sent elsewhere by what a link says."""
    own = path.startswith("/") and path.isascii() and path.isprintable() and path[1:2] not in {"/", "\\"}
    return path if own else "/"


def _is_secure(request: web.Request) -> bool:
    """Whether the browser speaks TLS, as far as a proxy tells."""
    return request.secure or request.headers.get("X-Forwarded-Proto", "").strip().lower() == "https"
