"""Reading batches, their jobs, and what they cost."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from aiohttp import web
from pydantic import BaseModel
from pydantic_core import to_json

from actors.batch.costs import GROUPED_BY, SINCE, CostReport, read_group, read_since
from actors.batch.job_views import Job
from actors.batch.views import Batch
from actors.errors import InvalidRequest, NotFound
from actors.web.handlers import JSON, TEXT, operation
from actors.web.parameters import (
    MOST,
    batch_id_of,
    etag_of,
    index_of,
    is_current,
    one_of,
    place_of,
    query_of,
    quoted,
    whole,
    wrong_parameter,
)
from storage.states import BatchStatus, JobStatus

if TYPE_CHECKING:
    from actors.web.handlers import Site

_METADATA = "metadata."
_LIMIT = {"type": "integer", "minimum": 1, "maximum": MOST, "default": 50}


class BatchPage(BaseModel):
    """Batches without their jobs, newest first."""

    data: list[Batch]
    has_more: bool
    """Whether there are more behind the last one."""


class JobPage(BaseModel):
    """Jobs in order."""

    data: list[Job]
    has_more: bool


class Batches:
    """`GET /api/v1/batches` and what is below it, and `GET /api/v1/costs`."""

    def __init__(self, site: Site) -> None:
        self._site = site

    @operation(
        {200: {JSON: BatchPage}}, 404, 410,
        query={
            "status": {"type": "string", "enum": [status.value for status in BatchStatus]},
            "metadata.KEY": {
                "type": "string",
                "description": "The metadata have this text at KEY, or a number or boolean written so.",
            },
            "limit": _LIMIT,
            "after": {"type": "string", "description": "The id of the last batch of the page before."},
        },
    )  # fmt: skip
    async def find(self, request: web.Request) -> web.Response:
        """Batches without their jobs, newest first."""
        query = query_of(request, ("status", "limit", "after"), _METADATA)
        limit, status = whole(query, "limit", 50, MOST), one_of(query, "status", BatchStatus)
        metadata = {name.removeprefix(_METADATA): text for name, text in query.items() if name.startswith(_METADATA)}
        list_batches = partial(self._site.service.list_batches, spelled=metadata)
        found = await self._site.call(list_batches, status, None, limit + 1, query.get("after"))
        return _json({"data": found[:limit], "has_more": len(found) > limit})

    @operation({200: {JSON: Batch}, 304: {}}, headers={"If-None-Match": TEXT}, told=("ETag",))
    async def show(self, request: web.Request) -> web.Response:
        """A batch with its jobs; 304 where the client has it already."""
        query_of(request, ())
        batch_id, service = batch_id_of(request), self._site.service
        if "If-None-Match" in request.headers:
            version = await self._site.call(service.version, batch_id)
            if is_current(request, version):
                return web.Response(status=304, headers={"ETag": quoted(version)})

        def read() -> tuple[bytes, str]:
            batch, sequence = service.versioned(batch_id)
            return to_json(batch), etag_of(batch, sequence)

        body, etag = await self._site.call(read)
        return web.Response(body=body, content_type=JSON, headers={"ETag": etag})

    @operation(
        {200: {JSON: JobPage}},
        query={
            "status": {"type": "string", "enum": [status.value for status in JobStatus]},
            "limit": _LIMIT,
            "after": {"type": "string", "description": "The index or the id of the last job of the page before."},
        },
    )
    async def jobs(self, request: web.Request) -> web.Response:
        """A batch's jobs in order."""
        query, batch_id = query_of(request, ("status", "limit", "after")), batch_id_of(request)
        limit, after = whole(query, "limit", 50, MOST), place_of(query, batch_id)
        status = one_of(query, "status", JobStatus)
        found = await self._site.call(self._site.service.list_jobs, batch_id, status, limit + 1, after)
        return _json({"data": found[:limit], "has_more": len(found) > limit})

    @operation({200: {JSON: Job}})
    async def job(self, request: web.Request) -> web.Response:
        """One job."""
        query_of(request, ())
        batch_id, index = batch_id_of(request), index_of(request)
        found = await self._site.call(self._site.service.list_jobs, batch_id, None, 1, index - 1)
        if not found:
            raise NotFound(f"there is no job {index} in batch {batch_id!r}")
        return _json(found[0])

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
        return _json(await self._site.call(service.costs, query.get("since"), query.get("by")))


def _json(document: Any) -> web.Response:
    return web.Response(body=to_json(document), content_type=JSON)
