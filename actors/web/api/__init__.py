"""The API, `/api/v1`: the verbs of the service over HTTP. Nothing is decided here."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from aiohttp import web

from actors.web.api.batches import Batches
from actors.web.api.changes import Changes
from actors.web.api.events import Events
from actors.web.api.openapi import OpenApi

if TYPE_CHECKING:
    from actors.web.handlers import Site

ROOT = "/api/v1"


def routes(site: Site) -> Iterable[web.RouteDef]:
    """Every route of the API."""
    batches, changes, events = Batches(site), Changes(site), Events(site)
    one = f"{ROOT}/batches/{{id}}"
    return [
        web.get("/openapi.json", OpenApi(site).show),
        web.get(f"{ROOT}/batches", batches.find),
        web.post(f"{ROOT}/batches", changes.create),
        web.get(one, batches.show),
        web.patch(one, changes.patch),
        web.delete(one, changes.delete),
        web.get(f"{one}/jobs", batches.jobs),
        web.get(f"{one}/jobs/{{index}}", batches.job),
        web.get(f"{one}/events", events.of_batch),
        web.get(f"{ROOT}/events", events.of_all, allow_head=False),
        web.post(f"{one}/process", changes.process),
        web.post(f"{one}/retry", changes.retry),
        web.post(f"{one}/cancel", changes.cancel),
        web.post(f"{ROOT}/quote", changes.quote),
        web.get(f"{ROOT}/costs", batches.costs),
    ]
