"""The pages that are looked at."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from aiohttp import web

from actors import __version__
from actors.batch.limits import Ceiling, left_text
from actors.batch.views import status_named
from actors.errors import NotFound, SettingsError, StorageError
from actors.web.health import Health
from actors.web.page import batches, videos, words
from actors.web.page.batches import BatchView
from actors.web.page.rendering import Pages, answer
from actors.web.page.sessions import login_values
from actors.web.parameters import batch_id_of, is_text, number_in, number_of
from storage.states import BatchStatus, JobStatus
from storage.unfinished import Unfinished
from storage.urls import server_of

if TYPE_CHECKING:
    from actors.service import BatchService
    from actors.settings import Settings
    from actors.web.handlers import Site
    from actors.web.problems import Problem

_TITLES = {401: "Log in", 403: "Not allowed", 404: "Not found", 409: "Not possible now", 410: "Deleted"}
_METADATA = "metadata."


class Views:
    """Reads, then renders; both beside the loop."""

    def __init__(self, site: Site, pages: Pages) -> None:
        self._site, self._pages = site, pages
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

        def read() -> dict[str, Any]:
            running, listed, more = self._site.service.look(
                lambda storage: batches.read_list(storage, wanted, metadata, after)
            )
            (first_key, first_value), *others = [*metadata.items()] or [("", "")]
            older = _list_link(status, metadata, listed[-1].id) if more else None
            return {
                "running": [BatchView(each) for each in running],
                "batches": [BatchView(each) for each in listed],
                "status": status, "key": first_key, "value": first_value,
                "others": ", ".join(f"{name}={text}" for name, text in others),
                "filtered": bool(status or metadata), "first": after is None,
                "newest": _list_link(status, metadata, None), "older": older,
            }  # fmt: skip

        return await self._pages.answer(request, "batches", read)

    async def batch(self, request: web.Request) -> web.StreamResponse:
        """A batch as what it is: a set of films."""
        batch_id, page = batch_id_of(request), number_of(request, "page") or 1
        shown = request.query.get("status") or None
        if shown not in batches.FILTERS:
            shown = None

        def read() -> dict[str, Any]:
            found = self._site.service.look(lambda storage: batches.read_batch(storage, batch_id, shown, page))
            waits = batches.waits_of(self._site.service, batch_id)
            cards = [videos.Card(job, waits.get(job.id, "")) for job in found.jobs]
            return {
                "batch": BatchView(found.batch, found.cost), "waits": waits, "shown": shown,
                "groups": videos.groups(cards), "shape": videos.shape(found.jobs), "pages": found.pages,
                "moments": words.time_line(found.events)[: batches.SHOWN_MOMENTS],
            }  # fmt: skip

        return await self._pages.answer(request, "batch", read)

    async def video(self, request: web.Request) -> web.StreamResponse:
        """A video with all that is known of it."""
        batch_id, index = batch_id_of(request), _video_of(request)

        def read() -> dict[str, Any]:
            batch, job, cost = self._site.service.look(lambda storage: videos.read_details(storage, batch_id, index))
            view = BatchView(batch)
            return {
                "batch": view, "shape": videos.shape([job]),
                "video": videos.Card(job, batches.waits_of(self._site.service, batch_id).get(job.id, "")),
                "details": videos.details(job, () if view.simulated else cost),
            }  # fmt: skip

        return await self._pages.answer(request, "video", read)

    async def history(self, request: web.Request) -> web.StreamResponse:
        """The time line of a batch."""
        batch_id, before = batch_id_of(request), number_of(request, "before")

        def read() -> dict[str, Any]:
            batch, first, events = self._site.service.look(
                lambda storage: batches.read_history(storage, batch_id, before)
            )
            return {
                "batch": BatchView(batch), "moments": words.time_line(events), "first": first, "newest": before is None,
            }  # fmt: skip

        return await self._pages.answer(request, "history", read)

    async def service(self, request: web.Request) -> web.StreamResponse:
        """Whether the service works, and what it has before it."""
        checks = await self._health.ready()

        def read() -> dict[str, Any]:
            service = self._site.service
            try:
                figures = _figures(service.unfinished(), service.budgets())
            except StorageError:
                figures = None
            return {"checks": checks, "figures": figures, "about": _about(service.settings, _provider(service))}

        return await self._pages.answer(request, "service", read)

    def problem(self, request: web.Request, problem: Problem) -> web.StreamResponse | None:
        """An error as a page, where a browser asks for one."""
        if "text/html" not in request.headers.get("Accept", "") or request.path.startswith("/api/"):
            return None
        if problem.status in (401, 429):
            html = self._pages.html(request, "login", login_values(request, problem))
        else:
            back = request.path if problem.status >= 500 and request.method == "GET" else "/"
            values = {
                "title": _TITLES.get(problem.status, "This did not work"), "detail": words.sentence(problem.detail),
                "errors": [(None, each.message) for each in problem.errors], "back": back,
                "back_text": "All batches" if back == "/" else "Try again",
            }  # fmt: skip
            html = self._pages.html(request, "problem", values)
        response = answer(html)
        response.set_status(problem.status)
        response.headers.update(problem.headers)
        return response


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


def _provider(service: BatchService) -> str:
    try:
        return server_of(service.provider)
    except SettingsError:
        return "none is set (OPENAI_BASE_URL)"


def _about(settings: Settings, provider: str) -> list[tuple[str, str]]:
    return [
        ("Version", __version__),
        ("Videos from", provider),
        ("Commands from RabbitMQ", "yes" if settings.amqp_url else "no (AMQP_URL is not set)"),
        ("Videos at a time in a batch", str(settings.batch_concurrency)),
        ("Most videos in a batch", f"{settings.batch_max_size:,}"),
    ]


def _figures(unfinished: Unfinished, budgets: Iterable[Ceiling] = ()) -> list[tuple[str, str]]:
    """What is recorded and has not ended, and what is left of the database's budgets, in words."""
    jobs = [(words.JOB_STATES[JobStatus(name)], number) for name, number in unfinished.jobs.items()]
    batches = [(words.BATCH_STATES[BatchStatus(name)], number) for name, number in unfinished.batches.items()]
    further = [
        ("Submissions of unknown outcome", unfinished.unknown_submissions),
        ("DELETEs owed to servers", unfinished.owed_deletes),
        ("Events not yet published", unfinished.outbox_events),
    ]
    return [
        *((f"Batches: {text.lower()}", f"{number:,}") for text, number in batches),
        *((f"Videos: {text.lower()}", f"{number:,}") for text, number in jobs),
        ("Longest wait of a video", words.span(unfinished.oldest_pending)),
        *((text, f"{number:,}") for text, number in further),
        ("Delay of publishing", words.span(unfinished.outbox_lag)),
        *(("Budget", left_text(budget)) for budget in budgets),
    ]
