"""Requests that schemathesis makes up from docs/openapi.json: no crash, and no answer outside the document.

`python -m tests.actors.web.test_schemathesis 2000` makes so many.
"""

import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from actors.service import BatchService
from actors.settings import Settings
from actors.web.listener import Listener
from tests.actors.web.conftest import request_of
from tests.docs.openapi_document import DOCUMENT

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
LEFT_OUT = ("/api/v1/events", "/readyz")
"""The one has no end; the other says truly that this service is not ready."""


@contextmanager
def answering() -> Iterator[str]:
    """A service with batches under ids that are often made up, too."""
    with tempfile.TemporaryDirectory() as folder:
        options = {"database_url": f"sqlite:///{folder}/batches.db", "video_dir": f"{folder}/videos"}
        with BatchService(Settings(_env_file=None, **options), simulate=True) as service:
            for batch_id in ("0", "A", "a"):
                service.create_batch(request_of("p", id=batch_id))
            service.cancel_batch("A")
            listener = Listener(service, "127.0.0.1:0", None)
            try:
                yield listener.url
            finally:
                listener.close()


def probe(url: str, examples: int) -> None:
    document = json.loads(DOCUMENT.read_text())
    for path in LEFT_OUT:
        del document["paths"][path]
    schema = schemathesis.openapi.from_dict(document)

    @settings(
        max_examples=examples, deadline=None, database=None, derandomize=True, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(case=schema.as_strategy())
    def run(case: schemathesis.Case) -> None:
        case.call_and_validate(base_url=url, checks=CHECKS, headers={"Accept": "application/json"}, timeout=30)

    run()


@pytest.mark.integration
def test_nothing_that_is_made_up_breaks_it() -> None:
    with answering() as url:
        probe(url, 60)


if __name__ == "__main__":
    with answering() as place:
        probe(place, int(sys.argv[1]))
