"""The pages that are looked at."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from aiohttp import web
from markupsafe import Markup

from actors import __version__
from actors.batch.views import status_named
from actors.errors import NotFound, SettingsError, StorageError
from actors.web.handlers import public
from actors.web.health import Health
from actors.web.page import models, reads, words
from actors.web.page.forms import NEW_FIELDS, form_of, lines_with
from actors.web.page.models import BatchView
from actors.web.page.rendering import POLICY, Renderer
from actors.web.parameters import batch_id_of, checked_id, is_text, number_in, number_of
from actors.web.problems import refused
from actors.web.security import ONLY_SHOWS, SESSION
from storage.states import BatchStatus
from storage.urls import server_of

if TYPE_CHECKING:
    from actors.settings import Settings
    from actors.web.handlers import Site
    from actors.web.problems import Problem
    from storage.records import JobRecord

_TITLES = {401: "Log in", 403: "Not allowed", 404: "Not found", 409: "Not possible now", 410: "Deleted"}
_NO_COOKIE = (
    "If you have just logged in, the browser has not kept the cookie of the session: allow cookies for this address."
)
_METADATA = "metadata."
_YEAR = "public, max-age=31536000, immutable"


class Views:
    """Reads, then renders; both beside the loop."""

    def __init__(self, site: Site, renderer: Renderer) -> None:
        self._site, self._renderer = site, renderer
        self._health = Health(site.service, site.io, makes_videos=site.makes_videos)

    async def batches(self, request: web.Request) -> web.StreamResponse:
        """All batches, newest first; what is made now on top."""
        query = request.query
        status, after = query.get("status") or None, query.get("after") or None
        key, value = query.get("key", "").strip(), query.get("value", "").strip()
        metadata = _metadata_of(request)
        if "key" in query or "value" in query:  # the form's fields: the address has the API's name for them
            given = metadata | ({key: value} if key else {})
            raise web.HTTPSeeOther(_list_link(status, given, None))
        wanted = status_named(BatchStatus, status)

        def show() -> str:
            read = self._site.service.look(lambda storage: reads.read_list(storage, wanted, metadata, after))
            (first_key, first_value), *others = [*metadata.items()] or [("", "")]
            older = _list_link(status, metadata, read.batches[-1].id) if read.more else None
            values = {
                "running": [BatchView.of(each) for each in read.running],
                "batches": [BatchView.of(each) for each in read.batches],
                "states": [(each.value, text) for each, text in words.BATCH_STATES.items()],
                "status": status, "key": first_key, "value": first_value,
                "others": ", ".join(f"{name}={text}" for name, text in others),
                "filtered": bool(status or metadata), "first": after is None,
                "newest": _list_link(status, metadata, None), "older": older,
            }  # fmt: skip
            return self.html(request, "batches", values)

        return answer(await self._site.call(show))

    async def batch(self, request: web.Request) -> web.StreamResponse:
        """A batch as what it is: a set of films."""
        batch_id, page = batch_id_of(request), number_of(request, "page") or 1
        shown = request.query.get("status") or None
        if shown not in models.FILTERS:
            shown = None

        def show() -> str:
            read = self._site.service.look(lambda storage: reads.read_batch(storage, batch_id, shown, page))
            waits, batch = self.waits(batch_id), BatchView.of(read.batch, read.cost)
            cards = [models.card(job, waits.get(job.id, "")) for job in read.jobs]
            query = {"status": shown} if shown else {}
            values = {
                "batch": batch, "waits": waits, "shown": shown, "groups": models.groups(cards),
                "shape": models.shape(read.jobs), "pages": read.pages,
                "moments": models.time_line(read.events)[: reads.SHOWN_MOMENTS],
                "page_link": lambda number: f"?{urlencode({**query, 'page': number})}",
            }  # fmt: skip
            return self.html(request, "batch", values)

        return answer(await self._site.call(show))

    async def video(self, request: web.Request) -> web.StreamResponse:
        """A video with all that is known of it."""
        batch_id, index = batch_id_of(request), _video_of(request)

        def show() -> str:
            batch, job, cost = self._site.service.look(lambda storage: reads.read_details(storage, batch_id, index))
            view = BatchView.of(batch)
            details = models.details(job, self.waits(batch_id).get(job.id, ""), () if view.simulated else cost)
            shape = models.shape([job])
            values = {"batch": view, "video": details.card, "details": details, "shape": shape}
            return self.html(request, "video", values)

        return answer(await self._site.call(show))

    async def retry(self, request: web.Request) -> web.StreamResponse:
        """The form of a retry."""
        self._check_writable()
        batch_id, chosen = batch_id_of(request), number_of(request, "video")
        return answer(await self._site.call(self.retry_form, request, batch_id, chosen))

    def retry_form(
        self,
        request: web.Request,
        batch_id: str,
        single: int | None,
        form: Mapping[str, str] | None = None,
        chosen: frozenset[int] | None = None,
        errors: list[tuple[str | None, str]] | None = None,
    ) -> str:
        """The form of a retry, as it was filled in.

        `chosen`: the videos that are chosen; None: those that an unchanged retry can help.
        """
        batch, jobs = self._site.service.look(lambda storage: reads.read_retryable(storage, batch_id, single))
        view, filled = BatchView.of(batch), form or {}
        videos = [
            {
                "card": models.card(job),
                "chosen": _helps(job) or single is not None if chosen is None else job.position in chosen,
                "prompt": filled.get(f"prompt-{job.position}", job.prompt),
            }
            for job in jobs
            if job.status in models.RETRIED
        ]
        values = {
            "batch": view, "videos": videos, "errors": errors or [], "key": uuid.uuid4().hex,
            "single": single is not None, "pay_again": "pay_again" in filled,
            "omitted": max(0, view.retryable - len(videos)) if single is None else 0,
            "budget": filled.get("budget", view.budget), "wrong": {field for field, _ in errors or ()},
        }  # fmt: skip
        return self.html(request, "retry", values)

    async def cancel(self, request: web.Request) -> web.StreamResponse:
        """What a cancellation would do, or has done."""
        batch_id = batch_id_of(request)

        def show() -> str:
            batch, charges = self._site.service.look(lambda storage: reads.read_charges(storage, batch_id))
            return self.html(request, "cancel", {"batch": BatchView.of(batch), "charges": charges})

        return answer(await self._site.call(show))

    async def edit(self, request: web.Request) -> web.StreamResponse:
        """The form of what can be changed in any state."""
        self._check_writable()
        return answer(await self._site.call(self.edit_form, request, batch_id_of(request)))

    def edit_form(
        self,
        request: web.Request,
        batch_id: str,
        form: Mapping[str, str] | None = None,
        errors: list[tuple[str | None, str]] | None = None,
    ) -> str:
        """The form of a batch's metadata and budget, as it was filled in."""
        batch = self._site.service.look(lambda storage: reads.batch_of(storage, batch_id))
        view, lines = BatchView.of(batch), lines_with(batch.metadata)
        form = form or {"metadata": lines, "before": lines, "budget": view.budget}
        values = {
            "batch": view, "errors": errors or [], "wrong": {field for field, _ in errors or ()},
            "form": {name: form.get(name, "") for name in ("metadata", "before", "budget")}, "key": uuid.uuid4().hex,
        }  # fmt: skip
        return self.html(request, "edit", values)

    async def delete(self, request: web.Request) -> web.StreamResponse:
        """What a deletion would remove."""
        self._check_writable()
        batch_id = batch_id_of(request)

        def show() -> str:
            batch = self._site.service.look(lambda storage: reads.batch_of(storage, batch_id))
            return self.html(request, "delete", {"batch": BatchView.of(batch)})

        return answer(await self._site.call(show))

    async def history(self, request: web.Request) -> web.StreamResponse:
        """The time line of a batch."""
        batch_id, before = batch_id_of(request), number_of(request, "before")

        def show() -> str:
            batch, first, events = self._site.service.look(
                lambda storage: reads.read_history(storage, batch_id, before)
            )
            values = {
                "batch": BatchView.of(batch), "moments": models.time_line(events), "first": first,
                "newest": before is None,
            }  # fmt: skip
            return self.html(request, "history", values)

        return answer(await self._site.call(show))

    async def new(self, request: web.Request) -> web.StreamResponse:
        """The form of a new batch, perhaps with what was asked for in a video."""
        self._check_writable()
        batch_id, index = request.query.get("batch", ""), number_of(request, "video")
        if index is None:
            return answer(self.new_form(request, dict.fromkeys(NEW_FIELDS, "")))

        def show() -> str:
            batch, job = self._site.service.look(lambda storage: reads.read_job(storage, checked_id(batch_id), index))
            return self.new_form(request, form_of(batch, job))

        return answer(await self._site.call(show))

    def new_form(
        self,
        request: web.Request,
        form: Mapping[str, str],
        errors: list[tuple[str | None, str]] | None = None,
        counted: str | None = None,
    ) -> str:
        """The form of a new batch, as it was filled in; `counted`: what it would make and cost."""
        settings, most = self._site.service.settings, self._site.service.settings.batch_max_size
        values = {
            "form": form, "errors": errors or [], "wrong": {field for field, _ in errors or ()},
            "more": any(form[name] for name in ("matrix", "params", "metadata", "concurrency", "budget")),
            "key": uuid.uuid4().hex, "most": most, "usual": _usual(settings),
            "counted": counted or f"At most {words.count(most, 'video')} (BATCH_MAX_SIZE).",
            "priced": bool(settings.sora_prices),
        }  # fmt: skip
        return self.html(request, "new", values)

    async def service(self, request: web.Request) -> web.StreamResponse:
        """Whether the service works, and what it has before it."""
        checks = await self._health.ready()

        def show() -> str:
            service = self._site.service
            try:
                figures = models.figures(service.unfinished(), service.budgets())
            except StorageError:
                figures = None
            values = {
                "names": words.CHECKS, "meanings": words.CHECKED, "checks": checks, "figures": figures,
                "about": _about(service.settings, self._provider()),
            }  # fmt: skip
            return self.html(request, "service", values)

        return answer(await self._site.call(show))

    def _check_writable(self) -> None:
        """Refuse a form that could not be sent.

        Raises:
            Refused: 403, in read-only mode.
        """
        if self._site.access.read_only:
            raise refused(403, ONLY_SHOWS)

    def _provider(self) -> str:
        service = self._site.service
        try:
            return server_of(service.provider)
        except SettingsError:
            return "none is set (OPENAI_BASE_URL)"

    @public
    async def login(self, request: web.Request) -> web.StreamResponse:
        """The form of the login."""
        values = {"next": request.query.get("next", "/"), "problem": ""}
        return answer(self.html(request, "login", values))

    @public
    async def asset(self, request: web.Request) -> web.StreamResponse:
        """A style sheet, a script, an icon."""
        asset = self._renderer.assets.get(request.match_info["name"])
        if asset is None:
            raise web.HTTPNotFound
        headers = {"Cache-Control": _YEAR}
        return web.Response(body=asset.body, content_type=asset.content_type, charset="utf-8", headers=headers)

    def problem(self, request: web.Request, problem: Problem) -> web.StreamResponse | None:
        """An error as a page, where a browser asks for one."""
        if "text/html" not in request.headers.get("Accept", "") or request.path.startswith("/api/"):
            return None
        if problem.status in (401, 429):
            values: dict[str, Any] = {**self._login_values(request, problem)}
            html = self.html(request, "login", values)
        else:
            back = request.path if problem.status >= 500 and request.method == "GET" else "/"
            values = {
                "title": _TITLES.get(problem.status, "This did not work"), "detail": words.sentence(problem.detail),
                "errors": [(None, each.message) for each in problem.errors], "back": back,
                "back_text": "All batches" if back == "/" else "Try again",
            }  # fmt: skip
            html = self.html(request, "problem", values)
        response = answer(html)
        response.set_status(problem.status)
        response.headers.update(problem.headers)
        return response

    def _login_values(self, request: web.Request, problem: Problem) -> dict[str, str]:
        """Where the login leads, and why it is shown; for a form whose session has ended, what became of it."""
        if request.path == "/login":
            return {"next": "/", "problem": words.sentence(problem.detail)}
        if request.method == "GET":
            return {"next": str(request.rel_url), "problem": _NO_COOKIE if _comes_from_login(request) else ""}
        text = (
            "You are not logged in any more: the form was not sent, and nothing was changed. Log in and send it again."
        )
        return {"next": request.path.removesuffix("/process"), "problem": text}

    def waits(self, batch_id: str) -> dict[str, str]:
        """Why videos of a batch wait, as far as this process makes them."""
        return models.waiting(self._site.service.waits(batch_id), time.monotonic())

    def html(self, request: web.Request, template: str, values: Mapping[str, Any]) -> str:
        """A page."""
        access, path = self._site.access, request.path
        site = {
            "known": access.token is None or access.is_known(request), "read_only": access.read_only,
            "has_token": access.token is not None and access.has_session(request),
        }  # fmt: skip
        here = Markup(' aria-current="page"')
        return self._renderer.page(
            template, {"site": site, "here": lambda place: here if path == place else "", **values}
        )


def _comes_from_login(request: web.Request) -> bool:
    """Whether a browser without the cookie of a session was on a page that may have had the form of the login."""
    origin, _, path = request.headers.get("Referer", "").partition(f"//{request.host}")
    own = bool(origin) and path in {"/login", str(request.rel_url)}
    return own and SESSION not in request.cookies


def answer(html: str) -> web.Response:
    """A page, and what a browser may load for it."""
    return web.Response(text=html, content_type="text/html", headers={"Content-Security-Policy": POLICY})


def _list_link(status: str | None, metadata: Mapping[str, str], after: str | None) -> str:
    query = {f"metadata.{key}": text for key, text in metadata.items()}
    query |= {name: text for name, text in (("status", status), ("after", after)) if text}
    return f"/?{urlencode(query)}" if query else "/"


def _video_of(request: web.Request) -> int:
    """The video's number in the path.

    Raises:
        NotFound: no video can have it.
    """
    number = number_in(request.match_info["index"])
    if number is None:
        raise NotFound(f"there is no video {request.match_info['index'][:80]!r}")
    return number


def _metadata_of(request: web.Request) -> dict[str, str]:
    """The filters by metadata: `metadata.KEY=value`, as the API has them; what can't be looked for is left out."""
    named = {name.removeprefix(_METADATA): text for name, text in request.query.items() if name.startswith(_METADATA)}
    return {key: text for key, text in named.items() if key and is_text(key + text)}


def _helps(job: JobRecord) -> bool:
    return bool(job.error is None or job.error.get("retryable"))


def _usual(settings: Settings) -> dict[str, str]:
    """What is used where a field is left empty."""
    servers = "empty: the server's default"
    return {
        "duration": f"{settings.sora_seconds} where empty" if settings.sora_seconds else servers,
        "size": f"{settings.sora_size} where empty" if settings.sora_size else f"such as 1280x720; {servers}",
        "model": f"{settings.sora_model} where empty" if settings.sora_model else servers,
        "concurrency": str(settings.batch_concurrency),
        "budget": settings.batch_budget or "none",
    }


def _about(settings: Settings, provider: str) -> list[tuple[str, str]]:
    return [
        ("Version", __version__),
        ("Videos from", provider),
        ("Commands from RabbitMQ", "yes" if settings.amqp_url else "no (AMQP_URL is not set)"),
        ("Videos at a time in a batch", str(settings.batch_concurrency)),
        ("Most videos in a batch", f"{settings.batch_max_size:,}"),
    ]
