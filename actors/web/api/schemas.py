"""JSON Schemas of what is read and told, from the models and the sentences below their fields."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from actors.batch.events import Event
from actors.batch.job_views import Job
from actors.batch.views import Batch

_MAY_BE_ABSENT = {"removed_at", "traceparent", "tracestate", "jobs_omitted"}


class BatchPage(BaseModel):
    """Batches without their jobs, newest first."""

    data: list[Batch]
    has_more: bool
    """Whether there are more behind the last one."""


class JobPage(BaseModel):
    """Jobs in order."""

    data: list[Job]
    has_more: bool


class EventPage(BaseModel):
    """Events in order."""

    data: list[Event]
    next: int | None
    """The `from_sequence` of the next page; null: there is none."""


class RetriedBatch(Batch):
    """A batch that is retried."""

    left_alone: list[str]
    """The failed jobs that would fail again unchanged: name or change them to retry them."""
    fetching: list[str]
    """The completed jobs whose missing file is downloaded again."""


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
