"""What a route takes and answers, said beside its handler. The OpenAPI document is printed from it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from aiohttp import web
from pydantic import BaseModel

H = TypeVar("H", bound=Callable[..., Awaitable[web.StreamResponse]])
JSON = "application/json"
Schema = Mapping[str, Any]
TEXT: Schema = {"type": "string"}
BINARY: Schema = {"type": "string", "format": "binary"}
FLAG: Schema = {"type": "boolean"}
NUMBER: Schema = {"type": "integer", "minimum": 1}


@dataclass(frozen=True, slots=True)
class Body:
    """What is sent."""

    model: type[BaseModel]
    kinds: tuple[str, ...] = (JSON,)
    required: bool = False
    without: tuple[str, ...] = ()
    """Fields of the model that the path says."""


@dataclass(frozen=True, slots=True)
class Operation:
    """What a route takes and answers."""

    answers: Mapping[int, Mapping[str, type[BaseModel] | Schema]]
    """By status, by content type; no content type: no body."""
    problems: tuple[int, ...] = ()
    """The statuses of errors, beside those of every route."""
    query: Mapping[str, Schema] = field(default_factory=dict)
    headers: Mapping[str, Schema] = field(default_factory=dict)
    body: Body | None = None
    told: tuple[str, ...] = ()
    """The headers of answers."""
    open: bool = False
    """Whether no token is needed."""


def operation(
    answers: Mapping[int, Mapping[str, type[BaseModel] | Schema]],
    *problems: int,
    query: Mapping[str, Schema] | None = None,
    headers: Mapping[str, Schema] | None = None,
    body: Body | None = None,
    told: tuple[str, ...] = (),
    open: bool = False,  # noqa: A002  (as in Operation)
) -> Callable[[H], H]:
    """Describe a handler; its docstring is the summary."""

    def describe(handler: H) -> H:
        handler.operation = Operation(answers, problems, query or {}, headers or {}, body, told, open)  # type: ignore[attr-defined]
        return handler

    return describe
