"""The page: HTML over the service, rendered here, readable without scripts, live with one small one of our own."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from aiohttp import web

from actors.web.page.actions import Actions
from actors.web.page.live import Live
from actors.web.page.rendering import Renderer
from actors.web.page.views import Views

if TYPE_CHECKING:
    from actors.web.handlers import Site


def routes(site: Site) -> Iterable[web.RouteDef]:
    """Every page, and what its forms send to."""
    renderer = Renderer()
    views = Views(site, renderer)
    actions, live = Actions(site, views), Live(site, renderer, views)
    site.page_of = views.problem
    batch = "/batches/{id}"
    return [
        web.get("/", views.batches),
        web.get("/live", live.list, allow_head=False),
        web.get("/new", views.new),
        web.post("/new", actions.create),
        web.post("/new/quote", actions.quote),
        web.get("/service", views.service),
        web.get("/login", views.login),
        web.get("/static/{name}", views.asset),
        web.get(batch, views.batch),
        web.get(f"{batch}/live", live.batch, allow_head=False),
        web.get(f"{batch}/history", views.history),
        web.get(f"{batch}/jobs/{{index}}", views.video),
        web.get(f"{batch}/retry", views.retry),
        web.post(f"{batch}/retry", actions.retry),
        web.get(f"{batch}/cancel", views.cancel),
        web.post(f"{batch}/cancel", actions.cancel),
        web.post(f"{batch}/process", actions.process),
        web.get(f"{batch}/edit", views.edit),
        web.post(f"{batch}/edit", actions.edit),
        web.get(f"{batch}/delete", views.delete),
        web.post(f"{batch}/delete", actions.delete),
    ]
