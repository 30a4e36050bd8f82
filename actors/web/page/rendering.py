"""Templates and assets: both are read once, from the package."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jinja2

from actors.web.page import words

_HERE = Path(__file__).parent
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
        self._environment.globals |= {"asset": places.__getitem__, "count": words.count, "has_media": has_media}
        self._environment.filters |= {"iso": _iso, "utc": _utc, "number": "{:,}".format}

    def page(self, name: str, values: Mapping[str, Any]) -> str:
        """The HTML of a template."""
        return self._environment.get_template(f"{name}.html").render(values)

    def part(self, template: str, macro: str, *arguments: Any, **named: Any) -> str:
        """The HTML of one macro, as the page has it."""
        return str(getattr(self._environment.get_template(f"{template}.html").module, macro)(*arguments, **named))


def _asset(path: Path) -> Asset:
    body = path.read_bytes()
    name = f"{path.stem}-{hashlib.sha256(body).hexdigest()[:12]}{path.suffix}"
    return Asset(name, _TYPES[path.suffix], body)


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _utc(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"
