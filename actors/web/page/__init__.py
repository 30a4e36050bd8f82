"""The page: HTML over the service, rendered here, readable without scripts, live with one small one of our own."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from aiohttp import web

from actors.web.page.actions import Actions
from actors.web.page.form_views import FormViews
from actors.web.page.live import Live
from actors.web.page.rendering import Pages
from actors.web.page.sessions import Sessions
from actors.web.page.views import Views

if TYPE_CHECKING:
    from actors.web.handlers import Site


def routes(site: Site) -> Iterable[web.RouteDef]:
    """Every page, and what its forms send to."""
    pages = Pages(site)
    views, forms = Views(site, pages), FormViews(site, pages)
    actions, live, sessions = Actions(site, forms), Live(site, pages.renderer), Sessions(site, pages)
    site.page_of = views.problem
    batch = "/batches/{id}"
    return [
        web.get("/", views.batches),
        web.get("/live", live.list, allow_head=False),
        web.get("/new", forms.new),
        web.post("/new", actions.create),
        web.post("/new/quote", actions.quote),
        web.get("/service", views.service),
        web.get("/login", sessions.form),
        web.post("/login", sessions.login),
        web.post("/logout", sessions.logout),
        web.get("/static/{name}", pages.asset),
        web.get(batch, views.batch),
        web.get(f"{batch}/live", live.batch, allow_head=False),
        web.get(f"{batch}/history", views.history),
        web.get(f"{batch}/jobs/{{index}}", views.video),
        web.get(f"{batch}/retry", forms.retry),
        web.post(f"{batch}/retry", actions.retry),
        web.get(f"{batch}/cancel", forms.cancel),
        web.post(f"{batch}/cancel", actions.cancel),
        web.post(f"{batch}/process", actions.process),
        web.get(f"{batch}/edit", forms.edit),
        web.post(f"{batch}/edit", actions.edit),
        web.get(f"{batch}/delete", forms.delete),
        web.post(f"{batch}/delete", actions.delete),
    ]
