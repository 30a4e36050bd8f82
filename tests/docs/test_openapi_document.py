"""The description of the HTTP API is that of the code, and the official validator takes it."""

import json

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from tests.docs.openapi_document import DOCUMENT, content, with_application


@pytest.fixture(scope="module")
def printed():
    return content()


def test_the_description_is_what_the_code_says(printed) -> None:
    assert json.loads(DOCUMENT.read_text()) == printed, "stale: run python -m tests.docs.openapi_document"


def test_the_official_validator_finds_nothing_wrong(printed) -> None:
    assert list(OpenAPIV31SpecValidator(printed).iter_errors()) == []
    printed["paths"]["/livez"]["get"]["responses"] = []
    assert list(OpenAPIV31SpecValidator(printed).iter_errors())


def test_every_route_of_the_api_is_described(printed) -> None:
    routes = with_application(
        lambda made: {
            (route.method, route.resource.canonical)
            for route in made.router.routes()
            if route.resource is not None and route.resource.canonical.startswith("/api/") and route.method != "HEAD"
        }
    )
    told = {(method.upper(), path) for path, item in printed["paths"].items() for method in item}
    assert routes <= told
