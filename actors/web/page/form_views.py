"""The pages with a form, as it was filled in, with what must change in it."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from aiohttp import web

from actors.batch.cancellation import may_be_charged
from actors.web.page import videos, words
from actors.web.page.batches import BatchView, batch_of
from actors.web.page.forms import NEW_FIELDS, Errors, form_of
from actors.web.page.lines import lines_with
from actors.web.page.rendering import Pages, answer
from actors.web.parameters import batch_id_of, checked_id, number_of
from actors.web.problems import refused
from actors.web.security import ONLY_SHOWS

if TYPE_CHECKING:
    from actors.settings import Settings
    from actors.web.handlers import Site
    from storage.records import JobRecord


class FormViews:
    """Reads, then renders; both beside the loop."""

    def __init__(self, site: Site, pages: Pages) -> None:
        self._site, self._pages = site, pages

    async def new(self, request: web.Request) -> web.StreamResponse:
        """The form of a new batch, perhaps with what was asked for in a video."""
        self._check_writable()
        batch_id, index = request.query.get("batch", ""), number_of(request, "video")
        if index is None:
            return answer(self.new_form(request, dict.fromkeys(NEW_FIELDS, "")))

        def show() -> str:
            batch, job = self._site.service.look(lambda storage: videos.read_job(storage, checked_id(batch_id), index))
            return self.new_form(request, form_of(batch, job))

        return answer(await self._site.call(show))

    def new_form(
        self, request: web.Request, form: Mapping[str, str], errors: Errors = (), counted: str | None = None
    ) -> str:
        """The form of a new batch; `counted`: what it would make and cost."""
        settings = self._site.service.settings
        most = settings.batch_max_size
        values = {
            "form": form, "most": most, "usual": _usual(settings), "priced": bool(settings.sora_prices),
            "counted": counted or f"At most {words.count(most, 'video')} (BATCH_MAX_SIZE).",
        }  # fmt: skip
        return self._filled(request, "new", values, errors)

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
        errors: Errors = (),
    ) -> str:
        """The form of a retry.

        `chosen`: the videos that are chosen; None: those that an unchanged retry can help.
        """
        batch, jobs = self._site.service.look(lambda storage: videos.read_retryable(storage, batch_id, single))
        view, filled = BatchView(batch), form or {}
        listed = [
            {
                "card": videos.Card(job),
                "chosen": _helps(job) or single is not None if chosen is None else job.position in chosen,
                "prompt": filled.get(f"prompt-{job.position}", job.prompt),
            }
            for job in jobs
            if job.status in videos.RETRIED
        ]
        values = {
            "batch": view, "videos": listed, "single": single is not None, "pay_again": "pay_again" in filled,
            "omitted": max(0, view.retryable - len(listed)) if single is None else 0,
            "budget": filled.get("budget", view.budget),
        }  # fmt: skip
        return self._filled(request, "retry", values, errors)

    async def edit(self, request: web.Request) -> web.StreamResponse:
        """The form of what can be changed in any state."""
        self._check_writable()
        return answer(await self._site.call(self.edit_form, request, batch_id_of(request)))

    def edit_form(
        self, request: web.Request, batch_id: str, form: Mapping[str, str] | None = None, errors: Errors = ()
    ) -> str:
        """The form of a batch's metadata and budget."""
        batch = self._site.service.look(lambda storage: batch_of(storage, batch_id))
        view, lines = BatchView(batch), lines_with(batch.metadata)
        form = form or {"metadata": lines, "before": lines, "budget": view.budget}
        values = {"batch": view, "form": {name: form.get(name, "") for name in ("metadata", "before", "budget")}}
        return self._filled(request, "edit", values, errors)

    async def cancel(self, request: web.Request) -> web.StreamResponse:
        """What a cancellation would do, or has done, and what may still be charged."""
        batch_id = batch_id_of(request)

        def read() -> dict[str, Any]:
            batch, charges = self._site.service.look(
                lambda storage: (batch_of(storage, batch_id), may_be_charged(storage, batch_id))
            )
            return {"batch": BatchView(batch), "charges": charges}

        return await self._pages.answer(request, "cancel", read)

    async def delete(self, request: web.Request) -> web.StreamResponse:
        """What a deletion would remove."""
        self._check_writable()
        batch_id = batch_id_of(request)

        def read() -> dict[str, Any]:
            return {"batch": BatchView(self._site.service.look(lambda storage: batch_of(storage, batch_id)))}

        return await self._pages.answer(request, "delete", read)

    def _filled(self, request: web.Request, template: str, values: Mapping[str, Any], errors: Errors) -> str:
        marked = {"errors": errors, "wrong": {field for field, _ in errors}, "key": uuid.uuid4().hex}
        return self._pages.html(request, template, {**values, **marked})

    def _check_writable(self) -> None:
        """Refuse a form that could not be sent.

        Raises:
            Refused: 403, in read-only mode.
        """
        if self._site.access.read_only:
            raise refused(403, ONLY_SHOWS)


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
