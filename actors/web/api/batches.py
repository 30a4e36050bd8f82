"""Reading batches and their jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aiohttp import web
from pydantic_core import to_json

from actors.web.api.queries import MOST, batch_id_of, query_of, whole

if TYPE_CHECKING:
    from actors.web.site import Site

_METADATA = "metadata."


class Batches:
    """`GET /api/v1/batches` and what is below it."""

    def __init__(self, site: Site) -> None:
        self._site = site

    async def find(self, request: web.Request) -> web.Response:
        """Batches without their jobs, newest first."""
        query = query_of(request, ("status", "limit", "after"), _METADATA)
        limit = whole(query, "limit", 50, MOST)
        metadata = {name.removeprefix(_METADATA): text for name, text in query.items() if name.startswith(_METADATA)}
        found = await self._site.call(
            self._site.service.list_batches, query.get("status"), metadata, limit + 1, query.get("after")
        )
        return json_response({"data": found[:limit], "has_more": len(found) > limit})

    async def show(self, request: web.Request) -> web.Response:
        """A batch with its jobs."""
        query_of(request, ())
        return json_response(await self._site.call(self._site.service.get_batch_status, batch_id_of(request)))


def json_response(document: Any, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """A document as JSON."""
    return web.Response(status=status, body=to_json(document), content_type="application/json", headers=headers)
