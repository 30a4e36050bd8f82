"""Pages of HTML, from templates, and the assets that they load: both are read once, from the package."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
from aiohttp import web

from actors.web.handlers import public
from actors.web.page import words

if TYPE_CHECKING:
    from actors.web.handlers import Site

_HERE = Path(__file__).parent
_YEAR = "public, max-age=31536000, immutable"
_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; media-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
"""What a browser may load for a page: nothing from elsewhere, and nothing that stands in the HTML itself."""


@dataclass(frozen=True, slots=True)
class Asset:
    """A file that pages load; its name changes with its bytes, so that it may be kept for ever."""

    name: str
    content_type: str
    body: bytes


class Renderer:
    """Makes HTML. Everything that is put into it is escaped; a name that a template misspells is an error."""

    def __init__(self) -> None:
        self.assets = {asset.name: asset for asset in map(_asset, sorted((_HERE / "static").iterdir()))}
        places = {f"{name.partition('-')[0]}{Path(name).suffix}": f"/static/{name}" for name in self.assets}
        self._environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(_HERE / "templates"), autoescape=True, undefined=jinja2.StrictUndefined,
            trim_blocks=True, lstrip_blocks=True, auto_reload=False,
        )  # fmt: skip
        has_media = all(find_spec(name) is not None for name in ("av", "PIL"))
        self._environment.globals |= {
            "asset": places.__getitem__,
            "count": words.count,
            "has_media": has_media,
            "words": words,
        }
        self._environment.filters |= {"iso": _iso, "utc": _utc, "number": "{:,}".format}

    def page(self, name: str, values: Mapping[str, Any]) -> str:
        """The HTML of a template."""
        return self._environment.get_template(f"{name}.html").render(values)

    def part(self, macro: str, *arguments: Any) -> str:
        """The HTML of one macro of `parts.html`, as the page has it."""
        return str(getattr(self._environment.get_template("parts.html").module, macro)(*arguments))


class Pages:
    """The pages of a site: what all of them have, and what they load."""

    def __init__(self, site: Site) -> None:
        self._site, self.renderer = site, Renderer()

    async def answer(
        self, request: web.Request, template: str, read: Callable[[], Mapping[str, Any]]
    ) -> web.StreamResponse:
        """Read what a page shows, and render it, both beside the loop."""
        return answer(await self._site.call(lambda: self.html(request, template, read())))

    def html(self, request: web.Request, template: str, values: Mapping[str, Any]) -> str:
        """A page."""
        access = self._site.access
        site = {
            "known": access.token is None or access.is_known(request), "read_only": access.read_only,
            "has_token": access.token is not None and access.has_session(request), "path": request.path,
        }  # fmt: skip
        return self.renderer.page(template, {"site": site, **values})

    @public
    async def asset(self, request: web.Request) -> web.StreamResponse:
        """A style sheet, a script, an icon."""
        asset = self.renderer.assets.get(request.match_info["name"])
        if asset is None:
            raise web.HTTPNotFound
        headers = {"Cache-Control": _YEAR}
        return web.Response(body=asset.body, content_type=asset.content_type, charset="utf-8", headers=headers)


def answer(html: str) -> web.Response:
    """A page, and what a browser may load for it."""
    return web.Response(text=html, content_type="text/html", headers={"Content-Security-Policy": POLICY})


def _asset(path: Path) -> Asset:
    body = path.read_bytes()
    name = f"{path.stem}-{hashlib.sha256(body).hexdigest()[:12]}{path.suffix}"
    return Asset(name, _TYPES[path.suffix], body)


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _utc(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"
