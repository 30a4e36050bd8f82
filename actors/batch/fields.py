"""The fields of requests: their types and limits, the same for JSON, batch files, the command line and RabbitMQ."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    WithJsonSchema,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

from actors.expectations import UNIT_PATTERN

DOCUMENT_MAX_BYTES = 65_536
"""For the metadata of a batch or a video, and for a video's params, as JSON."""
FILES_MAX_BYTES = 64 * 1024 * 1024
"""For all files of a video: its body is held in memory."""
MOST_FILES = 16
PROMPT_MAX = 32_000
LARGEST_SEED = 2**63 - 1
MOST_TAKES = 100
VIDEO_FIELDS = (
    "prompt", "duration", "seconds", "size", "model", "seed", "takes", "params", "files", "input_reference", "metadata",
)  # fmt: skip
"""The fields of a video and of `defaults`."""
BATCH_FIELDS = (
    "videos", "defaults", "matrix", "batch_name", "metadata", "id", "concurrency", "timeout_ms", "budget",
)  # fmt: skip
RESERVED = {
    "prompt": "prompt", "model": "model", "seconds": "duration", "size": "size", "seed": "seed",
    "input_reference": "input_reference", "n": "takes",
}  # fmt: skip
"""The names that `params` and `files` must not contain, nor begin with before a `[`, and what to use instead."""
_NAME = re.compile(r'[^\x00-\x1f\x7f"\\\ud800-\udfff]{1,128}')


def _storable(text: str) -> str:
    """Reject what a database can't store: NUL characters and lone surrogates."""
    if "\0" in text:
        raise ValueError("must not contain NUL characters")
    return valid_unicode(text)


def valid_unicode(text: str) -> str:
    """Reject a text with lone surrogates: it has no UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("must be valid Unicode, without lone surrogates") from None
    return text


def check_document(document: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """Reject what is not plain JSON, can't be stored, or exceeds 64 KiB as JSON."""
    try:
        text = json.dumps(document, ensure_ascii=False, allow_nan=False)
    except (ValueError, RecursionError):
        raise ValueError(
            "must be plain JSON: no NaN or Infinity, no number of thousands of digits, no deep nesting"
        ) from None
    if "\\u0000" in text.replace("\\\\", ""):  # not a literal backslash followed by u0000
        raise ValueError("must not contain NUL characters")
    _storable(text)
    if len(text.encode()) > DOCUMENT_MAX_BYTES:
        raise ValueError(f"must be at most {DOCUMENT_MAX_BYTES} bytes as JSON")
    return document


def no_boolean(value: Any) -> Any:
    """Reject true and false, which Python takes for 1 and 0."""
    if isinstance(value, bool):
        raise ValueError("must be a whole number")  # noqa: TRY004  (pydantic reports ValueErrors)
    return value


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be empty")
    return text


def form_field(name: str) -> str:
    """The field of a form that a name belongs to: `mask[file_id]` is a part of `mask`."""
    return name.partition("[")[0]


def _further_fields(fields: dict[str, Any]) -> dict[str, Any]:
    """Accept only names that a form can carry and that are no fields of a video."""
    for name in fields:
        if not _NAME.fullmatch(name):
            raise ValueError(
                f"contains the name {name[:80]!r}: names have 1 to 128 characters, no control characters, no quotes"
            )
        if (own := RESERVED.get(form_field(name))) is not None:
            raise ValueError(f"must not contain {name}: use the video's own field {own}")
    return fields


def _seed(value: Any) -> Any:
    if value == "random":
        return value
    if isinstance(value, str) and re.fullmatch(r"\d{1,19}", value, re.ASCII):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= LARGEST_SEED:
        raise ValueError(f'must be a whole number from 0 to {LARGEST_SEED}, or "random"')
    return value


def _matrix_value(value: Any) -> Any:
    if isinstance(value, str):
        return _storable(value)
    if isinstance(value, bool | int | float) and abs(value) < _LARGEST_NUMBER:
        return value
    raise ValueError("must be a string, a number of at most 308 digits, true or false")


def _matrix_name(name: str) -> str:
    if not name.strip() or len(name) > _LONGEST_NAME or not {"{", "}"}.isdisjoint(name):
        raise ValueError(f"must be a name of 1 to {_LONGEST_NAME} characters, without braces")
    return _storable(name)


_LONGEST_NAME = 64
_LARGEST_NUMBER = 10**308
"""Few programs read larger numbers, and Python does not even write far larger ones."""

Text = Annotated[str, AfterValidator(_storable)]
Prompt = Annotated[str, Field(max_length=PROMPT_MAX), AfterValidator(_storable), AfterValidator(_not_blank)]
Metadata = Annotated[dict[str, JsonValue], AfterValidator(check_document)]
Params = Annotated[dict[str, JsonValue], AfterValidator(_further_fields), AfterValidator(check_document)]
Whole = Annotated[int, Field(ge=1, le=1_000_000), BeforeValidator(no_boolean)]
Takes = Annotated[int, Field(ge=1, le=MOST_TAKES), BeforeValidator(no_boolean)]
Seed = Annotated[
    int | Literal["random"],
    BeforeValidator(_seed),
    WithJsonSchema(
        {"anyOf": [{"type": "integer", "minimum": 0, "maximum": LARGEST_SEED}, {"const": "random", "type": "string"}]}
    ),
]
MatrixName = Annotated[str, AfterValidator(_matrix_name)]
MatrixValue = Annotated[Any, AfterValidator(_matrix_value), WithJsonSchema({"type": ["string", "number", "boolean"]})]


class Input(BaseModel):
    """Input from outside: accepts both spellings of a field, and no unknown fields."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        loc_by_alias=False,
        extra="forbid",
        frozen=True,
    )

    @model_validator(mode="before")
    @classmethod
    def _one_spelling(cls, given: Any) -> Any:
        """Refuse a field in both spellings: pydantic would call the second one unknown."""
        if isinstance(given, dict):
            for name, camel in _spellings(cls):
                if name in given and camel in given:
                    raise PydanticCustomError(
                        "given_twice", "is given twice, also as {camel}: keep one", {"field": name, "camel": camel}
                    )
        return given


@functools.cache
def _spellings(model: type[Input]) -> list[tuple[str, str]]:
    """The fields that have two spellings, in both."""
    return [(name, camel) for name in model.model_fields if (camel := to_camel(name)) != name]


def given_twice(files: Iterable[str], params: Mapping[str, Any]) -> str | None:
    """A file that `params` contain too, whole or in part; None: there is none."""
    fields = {form_field(name) for name, value in params.items() if value is not None}
    return next((name for name in files if form_field(name) in fields), None)


class FileId(Input):
    """An input reference that the server already has."""

    file_id: Annotated[Text, Field(min_length=1, max_length=512)]


Files = Annotated[dict[str, Text | FileId], AfterValidator(_further_fields), Field(max_length=MOST_FILES)]


class BudgetRequest(Input):
    """The most that a batch may use."""

    amount: Annotated[Decimal, Field(gt=0, le=10**12, decimal_places=6), BeforeValidator(no_boolean)]
    """Units of the currency, seconds or videos."""
    unit: Annotated[str, Field(pattern=UNIT_PATTERN)]
    """A currency such as `USD`, or `seconds`, or `videos`."""


def _listed(value: Any) -> Any:
    return value if isinstance(value, list | tuple) else [value]


def _one_a_unit(budgets: list[BudgetRequest]) -> list[BudgetRequest]:
    units = [budget.unit for budget in budgets]
    twice = next((unit for unit in units if units.count(unit) > 1), None)
    if twice is not None:
        raise ValueError(f"has two entries in {twice}: give one")
    return budgets


Budgets = Annotated[list[BudgetRequest], BeforeValidator(_listed), Field(max_length=16), AfterValidator(_one_a_unit)]


def budget_document(budgets: Sequence[BudgetRequest] | None) -> list[dict[str, Any]] | None:
    """What a batch may use at most, as it is recorded; None: nothing is said of it."""
    return None if budgets is None else [each.model_dump(mode="json") for each in budgets]
