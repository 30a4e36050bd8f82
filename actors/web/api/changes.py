"""Changing batches: every request becomes one command. And what a new batch would cost."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from aiohttp import web
from pydantic import ValidationError

from actors.batch.command_data import CancelData, CommandName, CreateData, ProcessData, RetryData, read_data
from actors.batch.commands import CommandResult, Delete, Update
from actors.batch.field_errors import invalid
from actors.batch.fields import Budgets, Input, Metadata, budget_document
from actors.batch.quotes import Quote
from actors.batch.views import Batch, CancellationSummary
from actors.web.api.orders import Answer, Order, Orders, Reply
from actors.web.bodies import MERGE_PATCH, Body, read_body
from actors.web.handlers import FLAG, JSON, TEXT, Schema, Sent, changes_nothing, operation
from actors.web.parameters import batch_id_of, flag, query_of

if TYPE_CHECKING:
    from actors.web.handlers import Site


_KEY: dict[str, Schema] = {
    "Idempotency-Key": {
        "type": "string",
        "description": "The same request with the same key is done once, and gets its first answer again.",
    }
}
_MATCH: dict[str, Schema] = {"If-Match": TEXT}


class BatchPatch(Input):
    """A JSON Merge Patch (RFC 7396) of a batch."""

    metadata: Metadata | None = None
    """Merged into the batch's metadata; null removes all of them."""
    budget: Budgets | None = None
    """Replaces the batch's budget; null removes it."""


class RetriedBatch(Batch):
    """A batch that is retried."""

    left_alone: list[str]
    """The failed jobs that would fail again unchanged: name or change them to retry them."""
    fetching: list[str]
    """The completed jobs whose missing file is downloaded again."""


class Changes:
    """The routes that change batches."""

    def __init__(self, site: Site) -> None:
        self._site, self._orders = site, Orders(site)

    @operation(
        {201: {JSON: Batch}, 200: {JSON: Batch}}, 409,
        headers=_KEY, body=Sent(CreateData, required=True), told=("Location", "ETag", "Idempotency-Replayed"),
    )  # fmt: skip
    async def create(self, request: web.Request) -> web.Response:
        """Create a batch and, unless `process` is false, queue it."""
        query_of(request, ())
        body = await read_body(request, required=True)
        return await self._site.change(self._orders.create, Order.of(request, body), body.document)

    @changes_nothing
    @operation({200: {JSON: Quote}}, headers=_KEY, body=Sent(CreateData, required=True), told=("Idempotency-Replayed",))
    async def quote(self, request: web.Request) -> web.Response:
        """What a request would cost at most; nothing is recorded but the answer to an Idempotency-Key."""
        query_of(request, ())
        body = await read_body(request, required=True)
        return await self._site.change(self._quote, Order.of(request, body), body.document)

    @operation(
        {202: {JSON: Batch}}, 409, 412,
        headers=_KEY | _MATCH, body=Sent(ProcessData, without=("batch_id",)), told=("ETag", "Idempotency-Replayed"),
    )  # fmt: skip
    async def process(self, request: web.Request) -> web.Response:
        """Queue a batch."""
        return await self._change(request, CommandName.PROCESS, partial(self._orders.shown, status=202))

    @operation(
        {202: {JSON: RetriedBatch}}, 409, 412,
        headers=_KEY | _MATCH, body=Sent(RetryData, without=("batch_id",)), told=("ETag", "Idempotency-Replayed"),
    )  # fmt: skip
    async def retry(self, request: web.Request) -> web.Response:
        """Retry what failed or was cancelled."""

        def answer(done: CommandResult) -> Reply:
            reply = self._orders.shown(done, 202)
            jobs = {"left_alone": done.left_alone, "fetching": done.fetching}
            return Reply(202, reply.document.model_dump() | jobs, reply.headers)

        return await self._change(request, CommandName.RETRY, answer)

    @operation(
        {200: {JSON: CancellationSummary}}, 409, 412,
        headers=_KEY | _MATCH, body=Sent(CancelData, without=("batch_id",)), told=("Idempotency-Replayed",),
    )  # fmt: skip
    async def cancel(self, request: web.Request) -> web.Response:
        """End a batch."""
        return await self._change(request, CommandName.CANCEL, lambda done: Reply(200, done.summary))

    @operation(
        {200: {JSON: Batch}}, 412,
        headers=_MATCH, body=Sent(BatchPatch, MERGE_PATCH, required=True), told=("ETag",),
    )  # fmt: skip
    async def patch(self, request: web.Request) -> web.Response:
        """Change a batch's metadata and its budget."""
        query_of(request, ())
        batch_id, body = batch_id_of(request), await read_body(request, MERGE_PATCH, required=True)
        try:
            given = BatchPatch.model_validate(body.document)
        except ValidationError as error:
            raise invalid(error) from None
        command = _update(batch_id, given)
        return await self._site.change(self._orders.do, Order.of(request, body), command, self._orders.shown)

    @operation({204: {}}, 409, 412, query={"keep_files": FLAG}, headers=_MATCH)
    async def delete(self, request: web.Request) -> web.Response:
        """Delete an ended batch and, unless `keep_files` is true, its files."""
        keep_files = flag(query_of(request, ("keep_files",)), "keep_files")
        command, order = Delete(batch_id_of(request), keep_files), Order.of(request, Body("", {}))
        return await self._site.change(self._orders.do, order, command, lambda _: Reply(204))

    def _quote(self, order: Order, document: dict[str, Any]) -> web.Response:
        service = self._site.service
        data = read_data(CommandName.CREATE, document, service.settings.batch_max_size)
        assert isinstance(data, CreateData)
        if self._site.access.read_only:
            order = replace(order, key=None)
        return self._orders.answer(order, Reply(200, service.quote(data.request)))

    async def _change(self, request: web.Request, name: CommandName, answer: Answer) -> web.Response:
        query_of(request, ())
        batch_id, body = batch_id_of(request), await read_body(request)
        order = Order.of(request, body)
        return await self._site.change(self._orders.change, order, name, batch_id, body.document, answer)


def _update(batch_id: str, given: BatchPatch) -> Update:
    said = given.model_fields_set
    metadata: dict[str, Any] | None = given.metadata
    merge = metadata is not None
    if "metadata" in said and metadata is None:
        metadata = {}
    budget = (budget_document(given.budget) or []) if "budget" in said else None
    return Update(batch_id, metadata, budget, merge=merge)
