"""The OpenAPI document, made from the routes, from what their handlers say of themselves, and from the models."""

from __future__ import annotations

import ast
import inspect
import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from aiohttp import web
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

import actors
from actors.expectations import ID_PATTERN
from actors.web.handlers import JSON, Operation, Sent, operation
from actors.web.problems import CONTENT_TYPE, PROBLEM_SCHEMA, phrase_of

if TYPE_CHECKING:
    from actors.web.handlers import Site

Document = dict[str, Any]
_REFERENCE = "#/components/schemas/{model}"
_EVERYWHERE = (400, 401, 403, 429, 500, 503)
"""400: what is no HTTP; 403: a foreign Host or Origin, or read-only mode; 429: too many at once."""
_PATH: dict[str, Document] = {
    "id": {"type": "string", "pattern": ID_PATTERN},
    "index": {"type": "integer", "minimum": 1},
}
_TOLD: dict[str, Document] = {
    "ETag": {"type": "string"},
    "Location": {"type": "string"},
    "Idempotency-Replayed": {"const": "true"},
    "Link": {"type": "string"},
    "Content-Range": {"type": "string"},
}
_MAY_BE_ABSENT = {"removed_at", "traceparent", "tracestate", "jobs_omitted"}


class OpenApi:
    """`GET /openapi.json`."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._text: bytes | None = None

    @operation({200: {JSON: {"type": "object"}}})
    async def show(self, request: web.Request) -> web.Response:
        """This document."""
        if self._text is None:
            routes = described(request.app)
            self._text = await self._site.call(lambda: json.dumps(document(routes)).encode())
        return web.Response(body=self._text, content_type=JSON)


Described = list[tuple[str, str, Operation, str]]


def described(application: web.Application) -> Described:
    """Method, path, operation and summary of each route that says what it does."""
    found = []
    for route in application.router.routes():
        told = getattr(route.handler, "operation", None)
        if told is not None and route.method != "HEAD" and route.resource is not None:
            summary = (route.handler.__doc__ or "").strip().splitlines()[0]
            found.append((route.method, route.resource.canonical, told, summary))
    return found


def document(routes: Described) -> Document:
    """The whole document."""
    operations = [each for _, _, each, _ in routes]
    bodies = {each.body.model for each in operations if each.body is not None}
    schemas = {
        **_inputs(operations, read_schemas(_sorted(bodies), _REFERENCE)),
        **told_schemas(_sorted(_answered(operations)), _REFERENCE),
        "Problem": PROBLEM_SCHEMA,
    }
    paths: dict[str, Document] = {}
    for method, path, each, summary in routes:
        paths.setdefault(path, {})[method.lower()] = _operation(method, path, each, summary)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "sora-batch",
            "version": actors.__version__,
            "description": "Batches of videos: create, follow, cancel and retry them, and get their files.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "security": [{"bearer": []}, {"session": []}, {}],
        "paths": paths,
        "components": {
            "schemas": dict(sorted(schemas.items())),
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "WEB_TOKEN, where it is set."},
                "session": {"type": "apiKey", "in": "cookie", "name": "sora_batch_session"},
            },
        },
    }


def _answered(operations: Iterable[Operation]) -> Iterator[type[BaseModel]]:
    for each in operations:
        for answer in each.answers.values():
            yield from (model for model in answer.values() if isinstance(model, type))


def _sorted(models: Iterable[type[BaseModel]]) -> list[type[BaseModel]]:
    return sorted(set(models), key=lambda model: model.__name__)


def _inputs(operations: Iterable[Operation], schemas: dict[str, Document]) -> dict[str, Document]:
    """The schemas of bodies, without what the path says."""
    for body in (each.body for each in operations if each.body is not None):
        schema = schemas[body.model.__name__]
        for name in body.without:
            schema["properties"].pop(name, None)
            schema["required"] = [each for each in schema.get("required", []) if each != name]
    return schemas


def _operation(method: str, path: str, told: Operation, summary: str) -> Document:
    parameters = [_parameter(name, "path", _PATH[name]) for name in _PATH if f"{{{name}}}" in path]
    parameters += [_parameter(name, "query", schema) for name, schema in told.query.items()]
    parameters += [_parameter(name, "header", schema) for name, schema in told.headers.items()]
    answers = {str(status): _answer(status, answer, told.told) for status, answer in told.answers.items()}
    problems = {str(status): _problem(status) for status in sorted({*_EVERYWHERE, *told.problems, *_of(told, path)})}
    return {
        "operationId": _name(method, path),
        "summary": summary,
        **({"parameters": parameters} if parameters else {}),
        **({"requestBody": _body(told.body)} if told.body is not None else {}),
        "responses": {**answers, **{status: each for status, each in problems.items() if status not in answers}},
        **({"security": [{}]} if told.open else {}),
    }


def _of(told: Operation, path: str) -> set[int]:
    """The errors that follow from what a route takes."""
    found = {422} if path.startswith("/api/") else set()
    if "{id}" in path:
        found |= {404, 410}
    if told.body is not None:
        found |= {408, 413, 415}
    return found


def _name(method: str, path: str) -> str:
    words = [part.strip("{}") for part in path.removeprefix("/api/v1").replace(".", "/").split("/") if part]
    return "_".join([method.lower(), *words])


def _parameter(name: str, where: str, schema: Mapping[str, Any]) -> Document:
    text = schema.get("description")
    bare = {key: value for key, value in schema.items() if key != "description"}
    return {
        "name": name,
        "in": where,
        **({"description": text} if text else {}),
        **({"required": True} if where == "path" else {}),
        "schema": bare,
    }


def _schema(told: type[BaseModel] | Mapping[str, Any]) -> Document:
    return {"$ref": _REFERENCE.format(model=told.__name__)} if isinstance(told, type) else dict(told)


def _body(body: Sent) -> Document:
    content = {kind: {"schema": _schema(body.model)} for kind in body.kinds}
    return {"required": body.required, "content": content}


def _answer(status: int, told: Mapping[str, type[BaseModel] | Mapping[str, Any]], headers: tuple[str, ...]) -> Document:
    content = {kind: {"schema": _schema(each)} for kind, each in told.items()}
    return {
        "description": phrase_of(status),
        **({"headers": {name: {"schema": _TOLD[name]} for name in headers}} if headers else {}),
        **({"content": content} if content else {}),
    }


def _problem(status: int) -> Document:
    content = {CONTENT_TYPE: {"schema": {"$ref": _REFERENCE.format(model="Problem")}}}
    return {"description": phrase_of(status), "content": content}


def told_schemas(models: Iterable[type[BaseModel]], template: str) -> dict[str, dict[str, Any]]:
    """The schemas of answers by name: they have all their fields always."""
    listed = [(model, "serialization") for model in models]
    told: dict[str, dict[str, Any]] = models_json_schema(listed, ref_template=template)[1].get("$defs", {})  # type: ignore[arg-type]
    for schema in told.values():
        if "properties" in schema:
            schema["required"] = [each for each in schema["properties"] if each not in _MAY_BE_ABSENT]
    return _explained(told)


def read_schemas(models: Iterable[type[BaseModel]], template: str) -> dict[str, dict[str, Any]]:
    """The schemas of what is sent, by name."""
    listed = [(model, "validation") for model in models]
    return _explained(models_json_schema(listed, by_alias=False, ref_template=template)[1].get("$defs", {}))  # type: ignore[arg-type]


def _explained(schemas: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    for model in _models(BaseModel):
        properties = schemas.get(model.__name__, {}).get("properties", {})
        for name, text in _docstrings(model) if properties else ():
            if name in properties:
                properties[name]["description"] = text
    return schemas


def _models(base: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for model in base.__subclasses__():
        if model.__module__.startswith("actors."):
            yield model
            yield from _models(model)


def _docstrings(model: type[BaseModel]) -> Iterator[tuple[str, str]]:
    """The sentences below a model's fields, which pydantic would read from the source at each start."""
    for each in model.__mro__:
        if each.__module__.startswith("actors."):
            (definition,) = ast.parse(inspect.getsource(each)).body
            assert isinstance(definition, ast.ClassDef)
            for field, text in pairwise(definition.body):
                if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
                    assert isinstance(field.target, ast.Name)
                    yield field.target.id, inspect.cleandoc(ast.literal_eval(text.value))
