"""What a request would cost, and what was spent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aiohttp import web

from actors.batch.command_data import CommandName, CreateData, read_data
from actors.batch.costs import GROUPED_BY, SINCE, CostReport, read_group, read_since
from actors.batch.quotes import Quote
from actors.errors import InvalidRequest
from actors.web.api.batches import json_response
from actors.web.api.changes import KEY
from actors.web.api.orders import Order, Orders, Reply
from actors.web.bodies import read_body
from actors.web.handlers import JSON, Body, changes_nothing, operation
from actors.web.parameters import query_of, wrong_parameter

if TYPE_CHECKING:
    from actors.web.handlers import Site


class Money:
    """The routes about money."""

    def __init__(self, site: Site) -> None:
        self._site, self._orders = site, Orders(site)

    @changes_nothing
    @operation(
        {200: {JSON: Quote}},
        headers=KEY,
        body=Body(CreateData, required=True),
        told=("Idempotency-Replayed",),
    )
    async def quote(self, request: web.Request) -> web.Response:
        """What a request would cost at most; nothing is recorded but the answer to an Idempotency-Key."""
        query_of(request, ())
        body = await read_body(request, required=True)
        return await self._site.change(self._quote, Order.of(request, body), body.document)

    @operation(
        {200: {JSON: CostReport}},
        query={
            "since": {"type": "string", "description": "Only what was submitted since: a span (30d) or a UTC date."},
            "by": {"type": "string", "description": "In groups: day, model, batch or metadata.KEY."},
        },
    )
    async def costs(self, request: web.Request) -> web.Response:
        """What was spent, and what is left of the budgets of the database."""
        query, service = query_of(request, ("since", "by")), self._site.service
        for name, read, expected in (("since", read_since, SINCE), ("by", read_group, GROUPED_BY)):
            try:
                read(query.get(name))
            except InvalidRequest:  # it speaks of the options of the command line
                raise wrong_parameter(f"?{name}", query[name], expected, "value_error") from None
        return json_response(await self._site.call(service.costs, query.get("since"), query.get("by")))

    def _quote(self, order: Order, document: dict[str, Any]) -> web.Response:
        service = self._site.service
        data = read_data(CommandName.CREATE, document, service.settings.batch_max_size)
        assert isinstance(data, CreateData)
        keyless = self._site.access.read_only
        return self._orders.answer(order.without_key() if keyless else order, Reply(200, service.quote(data.request)))
