"""Holds what is told against docs/schemas and docs/openapi.json: nothing may be there that is not described."""

import functools
import json
import re
from typing import Any

from jsonschema import Draft202012Validator

from tests.docs.asyncapi_document import SCHEMAS, strict
from tests.docs.openapi_document import DOCUMENT


@functools.cache
def _validator(kind: str) -> Draft202012Validator:
    return Draft202012Validator(strict(json.loads((SCHEMAS / f"{kind}.json").read_text())))


def check_described(document: dict[str, Any]) -> None:
    """The document is as its schema says."""
    _validator(document["type"]).validate(document)


@functools.cache
def _openapi() -> tuple[dict[str, Any], list[tuple[re.Pattern[str], str]]]:
    document = json.loads(DOCUMENT.read_text())
    paths = [(re.compile(re.sub(r"{\w+}", "[^/]+", path)), path) for path in document["paths"]]
    return strict(document), paths


@functools.cache
def _answer_validator(path: str, method: str, status: str, kind: str) -> Draft202012Validator:
    document, _ = _openapi()
    content = document["paths"][path][method]["responses"][status]["content"]
    return Draft202012Validator({**content[kind]["schema"], "components": document["components"]})


def check_answered(method: str, target: str, status: int, content_type: str | None, body: bytes) -> None:
    """An answer of the API is as docs/openapi.json says; what is no route of it may only be refused."""
    document, paths = _openapi()
    where = target.partition("?")[0]
    path = next((path for pattern, path in paths if pattern.fullmatch(where)), None)
    told = document["paths"][path].get(method.lower().replace("head", "get")) if path is not None else None
    if path is None or told is None:
        assert status in (401, 403, 404, 405) or not where.startswith("/api/"), (method, target, status)
        return
    assert str(status) in told["responses"], f"{method} {path} answers {status}, which is not described"
    content = told["responses"][str(status)].get("content", {})
    if method == "HEAD" or not content:
        assert not body
        return
    kind = (content_type or "").partition(";")[0]
    assert kind in content or "*/*" in content, (method, target, status, content_type)
    if kind.endswith("json"):
        _answer_validator(path, method.lower(), str(status), kind).validate(json.loads(body))
