"""The forms that are sent: each becomes a command. What would act twice (create, retry, edit) passes the inbox."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

from aiohttp import web
from multidict import MultiDict

from actors.batch.changes import changed_columns
from actors.batch.commands import Command, CommandKey, Create, Delete, Process, Retry, Update
from actors.batch.factory import new_batch
from actors.batch.job_views import job_id
from actors.batch.requests import check_budget
from actors.errors import Conflict, InvalidRequest, OtherBody, SettingsError, SoraBatchError
from actors.service.reading import MOST
from actors.web.bodies import read_form
from actors.web.page import videos, words
from actors.web.page.form_views import FormViews
from actors.web.page.forms import Errors, budget_of, changes_of, digest_of, filled, parsed, with_document, wrong_fields
from actors.web.page.lines import metadata_patch
from actors.web.page.rendering import POLICY, answer
from actors.web.parameters import batch_id_of, number_of
from actors.web.problems import problem_of

if TYPE_CHECKING:
    from actors.web.handlers import Site

logger = logging.getLogger(__name__)
_SOURCE = "/sora-batch/page"
_KEY_CHARACTERS = 64
_AGAIN = "This form was sent before with other content, and that was done. To have this done too, send it again."


class Actions:
    """Carries out what forms say, then sends the browser to a page that shows it."""

    def __init__(self, site: Site, forms: FormViews) -> None:
        self._site, self._forms = site, forms

    async def create(self, request: web.Request) -> web.StreamResponse:
        """Make a batch of what the form says."""
        sent = await read_form(request)
        form = filled(sent)

        def act() -> str:
            service = self._site.service
            asked = parsed(form, service.settings.batch_max_size)
            if sent.get("do") == "check":
                return ""
            new = new_batch(asked, service.settings, service.now(), paths=False)
            command = Create(new, process=sent.get("do") != "save")
            return self._obey(command, sent)

        try:
            batch_id = await self._site.change(act)
        except SoraBatchError as error:
            return self._refused(
                error,
                lambda errors: self._forms.new_form(request, form, errors),
                with_document if form["document"] else wrong_fields,
            )
        if not batch_id:
            text = await self._site.call(self._quoted, form)
            return answer(self._forms.new_form(request, form, counted=text))
        raise web.HTTPSeeOther(f"/batches/{batch_id}")

    async def quote(self, request: web.Request) -> web.StreamResponse:
        """What the form of a new batch would make and cost, while it is filled in; nothing, where that is not clear."""
        form = filled(await read_form(request))
        try:
            text, problem = await self._site.call(self._quoted, form), ""
        except SoraBatchError as error:
            text, problem = "", _what_is_wrong(error)
        return web.json_response({"text": text, "problem": problem})

    def _quoted(self, form: Mapping[str, str]) -> str:
        service = self._site.service
        quoted = service.quote(parsed(form, service.settings.batch_max_size))
        price = words.sentence(f"{quoted.sentence}.") if service.settings.sora_prices else ""
        return f"{words.count(quoted.total, 'video')}. {price}".strip()

    async def process(self, request: web.Request) -> web.StreamResponse:
        """Have a batch made."""
        batch_id = batch_id_of(request)
        await self._site.change(self._obey, Process(batch_id))
        raise web.HTTPSeeOther(f"/batches/{batch_id}")

    async def cancel(self, request: web.Request) -> web.StreamResponse:
        """Cancel a batch. What has been cancelled is shown what came of it."""
        batch_id = batch_id_of(request)
        with suppress(Conflict):  # it ended meanwhile: the page says how
            await self._site.change(self._site.service.cancel_batch, batch_id)
        raise web.HTTPSeeOther(f"/batches/{batch_id}/cancel")

    async def retry(self, request: web.Request) -> web.StreamResponse:
        """Retry the chosen videos, with the prompts that were changed, or all."""
        batch_id, sent = batch_id_of(request), await read_form(request)
        form = {name: str(text) for name, text in sent.items()}
        chosen = frozenset(
            int(text) for text in map(str, sent.getall("video", [])) if text.isascii() and text.isdigit()
        )
        every = sent.get("do") == "all"

        def act() -> str:
            service = self._site.service
            _, jobs = service.look(lambda storage: videos.read_retryable(storage, batch_id, None, limit=MOST))
            offered = {job.position: job for job in jobs}
            named = sorted(offered if every else chosen)
            if not named:
                raise InvalidRequest("Choose at least one video.")
            prompts = {index: offered[index].prompt for index in named if index in offered}
            ids = {index: job_id(batch_id, index) for index in named}
            changes = changes_of(form, prompts, ids)
            columns, references = changed_columns(changes, service.settings, paths=False)
            listed = None if every and not changes else tuple(ids.values())
            budget = check_budget(budget_of(form["budget"].strip())) if "budget" in form else None
            command = Retry(batch_id, listed, columns, references, pay_again="pay_again" in form, budget=budget)
            return self._obey(command, sent)

        try:
            await self._site.change(act)
        except SoraBatchError as error:
            single = number_of(request, "video")
            return await self._site.call(
                self._refused,
                error,
                lambda errors: self._forms.retry_form(request, batch_id, single, form, chosen, errors),
            )
        raise web.HTTPSeeOther(f"/batches/{batch_id}")

    async def edit(self, request: web.Request) -> web.StreamResponse:
        """Change a batch's metadata and its budget."""
        batch_id, sent = batch_id_of(request), await read_form(request)
        form = {name: str(text).strip() for name, text in sent.items()}

        def act() -> str:
            patch, budget = metadata_patch(form), check_budget(budget_of(form.get("budget", "")))
            return self._obey(Update(batch_id, patch, budget, merge=True), sent)

        try:
            await self._site.change(act)
        except SoraBatchError as error:
            return await self._site.call(
                self._refused, error, lambda errors: self._forms.edit_form(request, batch_id, form, errors)
            )
        raise web.HTTPSeeOther(f"/batches/{batch_id}")

    async def delete(self, request: web.Request) -> web.StreamResponse:
        """Delete a batch that has ended."""
        batch_id, sent = batch_id_of(request), await read_form(request)
        command = Delete(batch_id, keep_files="keep_files" in sent)
        await self._site.change(self._obey, command)
        raise web.HTTPSeeOther("/")

    def _obey(self, command: Command, sent: MultiDict[str] | None = None) -> str:
        """The id of the command's batch; of the first one, if the form was sent before."""
        key = None
        if sent is not None and sent.get("key"):
            said = [(name, text) for name, text in sent.items() if name != "key"]
            key = CommandKey(_SOURCE, sent["key"][:_KEY_CHARACTERS], digest_of(type(command).__name__, said))
        return self._site.service.obey(command, key, lambda done: done.batch_id)

    def _refused(
        self,
        error: SoraBatchError,
        form: Callable[[Errors], str],
        fields: Callable[[InvalidRequest], Errors] = wrong_fields,
    ) -> web.StreamResponse:
        """The form once more, with what must change."""
        problem = problem_of(error)
        assert problem is not None
        if problem.status >= 500:
            logger.warning("could not process a form", extra={"action": "web_failed", "error": str(error)})
        errors: Errors = [(None, problem.detail)]
        if isinstance(error, OtherBody):
            errors = [(None, _AGAIN)]
        elif isinstance(error, InvalidRequest) and not isinstance(error, SettingsError):
            errors = fields(error)
        headers = {"Content-Security-Policy": POLICY, **problem.headers}
        return web.Response(text=form(errors), status=problem.status, content_type="text/html", headers=headers)


def _what_is_wrong(error: SoraBatchError) -> str:
    """The first thing that must change in a form; of the service's settings only that they can't be used."""
    if isinstance(error, InvalidRequest) and not isinstance(error, SettingsError):
        return next((text for _, text in wrong_fields(error)), "")
    problem = problem_of(error)
    logger.warning("could not quote", extra={"action": "web_quote", "error": str(error)})
    return "" if problem is None else words.sentence(problem.detail)
