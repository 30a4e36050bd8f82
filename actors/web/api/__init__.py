"""The API, `/api/v1`: the verbs of the service over HTTP. Nothing is decided here."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from aiohttp import web

from actors.web.api.batches import Batches

if TYPE_CHECKING:
    from actors.web.site import Site

ROOT = "/api/v1"


def routes(site: Site) -> Iterable[web.RouteDef]:
    """Every route of the API."""
    batches = Batches(site)
    return [
        web.get(f"{ROOT}/batches", batches.find),
        web.get(f"{ROOT}/batches/{{id}}", batches.show),
    ]
