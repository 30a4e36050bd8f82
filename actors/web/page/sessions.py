"""Logging in from a browser: a form with the token, and a cookie for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from actors.web.bodies import arriving
from actors.web.handlers import changes_nothing, public
from actors.web.page import words
from actors.web.page.rendering import Pages, answer
from actors.web.problems import refused
from actors.web.security import SESSION, SESSION_SECONDS, Failures, too_many

if TYPE_CHECKING:
    from actors.web.handlers import Site
    from actors.web.problems import Problem

_FORM_BYTES = 16 * 1024
_NO_COOKIE = (
    "If you have just logged in, the browser has not kept the cookie of the session: allow cookies for this address."
)


class Sessions:
    """Begins and ends sessions."""

    def __init__(self, site: Site, pages: Pages) -> None:
        self._access, self._pages, self._failures = site.access, pages, Failures()

    @public
    async def form(self, request: web.Request) -> web.StreamResponse:
        """The form of the login."""
        values = {"next": request.query.get("next", "/"), "problem": ""}
        return answer(self._pages.html(request, "login", values))

    @public
    @changes_nothing
    async def login(self, request: web.Request) -> web.StreamResponse:
        """Take the form: give the cookie for the token, and go on to `next`, a path of this service."""
        if request.content_type != "application/x-www-form-urlencoded":
            raise refused(415, "send the fields token and next as application/x-www-form-urlencoded")
        if (request.content_length or 0) > _FORM_BYTES:
            raise refused(413, f"the form has {request.content_length} bytes; at most {_FORM_BYTES} are accepted")
        async with arriving():
            form = await request.post()
        there = _see_other(_own_path(str(form.get("next", ""))))
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
        there = _see_other("/login" if self._access.token is not None else "/")
        there.del_cookie(SESSION, path="/", httponly=True, samesite="Lax", secure=_is_secure(request))
        return there


def _see_other(path: str) -> web.Response:
    """Lead on after a form; unlike aiohttp's own, this may be returned, and carry a cookie."""
    return web.Response(status=303, headers={"Location": path})


def _own_path(path: str) -> str:
    """A path of this service: nobody is sent elsewhere by what a link says."""
    own = path.startswith("/") and path.isascii() and path.isprintable() and path[1:2] not in {"/", "\\"}
    return path if own else "/"


def _is_secure(request: web.Request) -> bool:
    """Whether the browser speaks TLS, as far as a proxy tells."""
    return request.secure or request.headers.get("X-Forwarded-Proto", "").strip().lower() == "https"


def login_values(request: web.Request, problem: Problem) -> dict[str, str]:
    """Where the login leads, and why it is shown; for a form whose session has ended, what became of it."""
    if request.path == "/login":
        return {"next": "/", "problem": words.sentence(problem.detail)}
    if request.method == "GET":
        return {"next": str(request.rel_url), "problem": _NO_COOKIE if _comes_from_login(request) else ""}
    text = "You are not logged in any more: the form was not sent, and nothing was changed. Log in and send it again."
    return {"next": request.path.removesuffix("/process"), "problem": text}


def _comes_from_login(request: web.Request) -> bool:
    """Whether a browser without the cookie of a session was on a page that may have had the form of the login."""
    origin, _, path = request.headers.get("Referer", "").partition(f"//{request.host}")
    own = bool(origin) and path in {"/login", str(request.rel_url)}
    return own and SESSION not in request.cookies
