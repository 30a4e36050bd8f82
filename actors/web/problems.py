"""Errors as RFC 9457 has them: what each error of the library is over HTTP."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from aiohttp import web

from actors.errors import (
    Conflict,
    DeletedBatch,
    ErrorCode,
    FieldError,
    InvalidRequest,
    NotFound,
    ServiceClosed,
    SettingsError,
    SoraBatchError,
    Stale,
    StorageError,
    UnknownBatch,
    encodable,
    listed,
)
from actors.settings.server import NO_SERVER

CONTENT_TYPE = "application/problem+json"
_CODES = {
    401: ErrorCode.AUTHENTICATION,
    403: ErrorCode.PERMISSION,
    404: ErrorCode.NOT_FOUND,
    410: ErrorCode.NOT_FOUND,
    412: ErrorCode.CONFLICT,
    429: ErrorCode.RATE_LIMITED,
    500: ErrorCode.INTERNAL,
    503: ErrorCode.UNAVAILABLE,
}

PROBLEM_SCHEMA: dict[str, Any] = {
    "type": "object",
    "description": "An error (RFC 9457).",
    "properties": {
        "type": {"type": "string", "pattern": "^urn:sora-batch:error:[a-z_]+$"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {"type": "string", "enum": [code.value for code in ErrorCode]},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "field": {
                        "type": "string",
                        "description": "A JSON Pointer into the body, the name of a header, or `?` and that of a query "
                        "parameter; empty: the whole request.",
                    },
                    "message": {"type": "string"},
                    "expected": {"type": "string"},
                    "code": {"type": "string"},
                },
                "required": ["field", "message", "expected", "code"],
            },
        },
    },
    "required": ["type", "title", "status", "detail", "code", "errors"],
}
"""An error in the OpenAPI document."""


_PHRASES = {413: "Content Too Large", 416: "Range Not Satisfiable", 422: "Unprocessable Content"}
"""Those of RFC 9110 that Python before 3.13 calls by their older names."""


def phrase_of(status: int) -> str:
    """What RFC 9110 calls a status."""
    return _PHRASES.get(status) or HTTPStatus(status).phrase


@dataclass(frozen=True, slots=True)
class Problem:
    """An error that is answered."""

    status: int
    code: ErrorCode
    detail: str
    """For a person: what was tried, the value, and a way out."""
    errors: tuple[FieldError, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def document(self) -> dict[str, object]:
        """The error as JSON."""
        return {
            "type": f"urn:sora-batch:error:{self.code.value}",
            "title": phrase_of(self.status),
            "status": self.status,
            "detail": encodable(self.detail),
            "code": self.code.value,
            "errors": listed(self.errors),
        }

    def response(self) -> web.Response:
        """The error as `application/problem+json`."""
        body = json.dumps(self.document).encode()
        return web.Response(status=self.status, body=body, content_type=CONTENT_TYPE, headers=self.headers)


class Refused(Exception):
    """A request is answered with this problem; for what the library has no error for."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail)
        self.problem = problem


def refused(
    status: int, detail: str, errors: tuple[FieldError, ...] = (), headers: Mapping[str, str] | None = None
) -> Refused:
    """A refusal with the code that fits the status."""
    return Refused(Problem(status, _CODES.get(status, ErrorCode.INVALID_REQUEST), detail, errors, headers or {}))


def problem_of(error: Exception) -> Problem | None:
    """What an error of the library, of a handler or of aiohttp is over HTTP; None: a mistake of ours.

    A text names no path of this machine and no database: who asks may be a stranger to it.
    """
    if isinstance(error, Refused):
        return error.problem
    if isinstance(error, Stale):
        return Problem(412, error.code, error.message)
    if isinstance(error, web.HTTPException):
        allow = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
        return refused(error.status, error.reason.lower(), headers=allow).problem
    return _of_library(error) if isinstance(error, SoraBatchError) else None


def _of_library(error: SoraBatchError) -> Problem:
    if isinstance(error, UnknownBatch):
        was = isinstance(error, DeletedBatch)
        text = f"batch {error.batch_id!r} was deleted" if was else f"there is no batch {error.batch_id!r}"
        return Problem(410 if was else 404, error.code, text)
    if isinstance(error, StorageError):
        text = "the database can't be read or written at the moment; the service's log says why. Try again"
        return Problem(503, error.code, text, headers={"Retry-After": "1"})
    if isinstance(error, ServiceClosed):
        return _unavailable("the service is stopping; try again")
    if isinstance(error, SettingsError):  # its text may name a file
        return _unavailable(NO_SERVER if error.message == NO_SERVER else _MISCONFIGURED)
    status = next((status for kind, status in _STATUSES if isinstance(error, kind)), 500)
    errors = error.errors if isinstance(error, InvalidRequest) else ()
    return Problem(status, error.code, error.message, errors)


def _unavailable(text: str) -> Problem:
    return Problem(503, ErrorCode.UNAVAILABLE, text, headers={"Retry-After": "5"})


_MISCONFIGURED = "a setting of the service, or a file that one names, can't be used; the service's log says which"
_STATUSES = ((InvalidRequest, 422), (NotFound, 404), (Conflict, 409))
