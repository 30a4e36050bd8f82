"""Prints docs/openapi.json from the code: `python -m tests.docs.openapi_document` writes it.

It is what `GET /openapi.json` answers, so it is asked of a service.
"""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from aiohttp import web

from actors.loop import IOLoop
from actors.service import BatchService
from actors.settings import Settings
from actors.web.api.openapi import described, document
from actors.web.application import application
from actors.web.handlers import Site
from actors.web.metrics import Metrics
from actors.web.security import Access

T = TypeVar("T")
DOCUMENT = Path(__file__).parents[2] / "docs" / "openapi.json"


def content() -> dict[str, Any]:
    return with_application(lambda made: document(described(made)))


def with_application(look: Callable[[web.Application], T]) -> T:
    """Look at the application, which answers nobody."""
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(_env_file=None, database_url=f"sqlite:///{folder}/batches.db", video_dir=folder)  # type: ignore[call-arg]
        with BatchService(settings) as service:
            io = IOLoop("sora-web")
            site = Site(service, io, Metrics(), Access(None))
            try:
                return look(application(site))
            finally:
                site.close()
                io.close()


def text() -> str:
    return json.dumps(content(), indent=2) + "\n"


if __name__ == "__main__":
    DOCUMENT.write_text(text())
