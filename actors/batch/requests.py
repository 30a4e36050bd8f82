"""What is asked for (pydantic).

Snake case on the wire; the camelCase of field names is accepted too, never for the keys in `metadata`.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Sequence
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.alias_generators import to_camel

from actors.errors import FieldError, InvalidRequest
from actors.expectations import ID_PATTERN, SIZE_PATTERN, expectation

METADATA_MAX_BYTES = 65_536
_SHOWN_MAX = 80
_ERRORS_MAX = 1000


def _storable(text: str) -> str:
    """Refuse what a database can't keep: NUL characters and lone surrogates."""
    if "\0" in text:
        raise ValueError("must not contain NUL characters")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("must be valid Unicode, without lone surrogates") from None
    return text


def _storable_document(document: dict[str, JsonValue]) -> dict[str, JsonValue]:
    try:
        text = json.dumps(document, ensure_ascii=False, allow_nan=False)
    except (ValueError, RecursionError):
        raise ValueError("must be plain JSON, without NaN or Infinity, and not deeply nested") from None
    if "\\u0000" in text:
        raise ValueError("must not contain NUL characters")
    _storable(text)
    if len(text.encode()) > METADATA_MAX_BYTES:
        raise ValueError(f"must be at most {METADATA_MAX_BYTES} bytes as JSON")
    return document


def _no_boolean(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("must be a whole number")  # noqa: TRY004  (pydantic reports ValueErrors)
    return value


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be empty")
    return text


Text = Annotated[str, AfterValidator(_storable)]
Prompt = Annotated[str, Field(max_length=32_000), AfterValidator(_storable), AfterValidator(_not_blank)]
Metadata = Annotated[dict[str, JsonValue], AfterValidator(_storable_document)]
Whole = Annotated[int, Field(ge=1, le=1_000_000), BeforeValidator(_no_boolean)]


class Input(BaseModel):
    """What comes from outside: both spellings of a field, and nothing that is unknown."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        loc_by_alias=False,
        extra="forbid",
        frozen=True,
    )


class FileId(Input):
    """An input reference that the server has already."""

    file_id: Annotated[Text, Field(min_length=1, max_length=512)]


class VideoRequest(Input):
    """One video to make. What it does not say, the settings say, or else the server."""

    prompt: Prompt
    duration: Whole | None = None
    """Seconds."""
    seconds: Annotated[Whole | None, Field(exclude=True)] = None
    """Another name of `duration`, the Videos API's own: a request may have either."""
    size: Annotated[str, Field(pattern=SIZE_PATTERN)] | None = None
    """`<width>x<height>` in pixels."""
    model: Annotated[Text, Field(min_length=1, max_length=256)] | None = None
    input_reference: Text | FileId | None = None
    """A path (library and command line only), a data URL, an https URL of an allowed host, or `{file_id}`."""
    metadata: Metadata = Field(default_factory=dict)

    @field_validator("seconds")
    @classmethod
    def _one_of_both(cls, seconds: int | None, info: ValidationInfo) -> int | None:
        if seconds is not None and info.data.get("duration") is not None:
            raise ValueError("means the same as duration: give one of them")
        return seconds

    @model_validator(mode="after")
    def _told_as_duration(self) -> Self:
        """Whichever name was used, it is the same request."""
        if self.seconds is not None:
            self.__dict__.update(duration=self.seconds, seconds=None)  # frozen for others
            self.__pydantic_fields_set__.add("duration")
        return self


class BatchVideoRequest(Input):
    """The videos that belong together."""

    videos: Annotated[list[VideoRequest], Field(min_length=1)]
    batch_name: Annotated[Text, Field(max_length=256)] | None = None
    metadata: Metadata = Field(default_factory=dict)
    id: Annotated[str, Field(pattern=ID_PATTERN)] | None = None
    concurrency: Whole | None = None
    timeout_ms: Annotated[int, Field(ge=0, le=10**10), BeforeValidator(_no_boolean)] | None = None
    """Milliseconds for each round of the batch; 0: no limit."""

    @classmethod
    def parse(cls, request: Self | dict[str, Any], *, max_size: int) -> Self:
        """Validate a request as it came.

        Raises:
            InvalidRequest: with one entry for each field that is wrong.
        """
        try:
            parsed = request if isinstance(request, cls) else cls.model_validate(request)
        except ValidationError as error:
            raise invalid(error) from None
        except RecursionError:
            raise InvalidRequest("the request is nested too deeply to be read") from None
        if len(parsed.videos) > max_size:
            expected = f"at most {max_size} videos (BATCH_MAX_SIZE)"
            message = f"videos: {len(parsed.videos)} videos are too many, expected {expected}"
            raise InvalidRequest(message, (FieldError("/videos", message, expected, "too_long"),))
        return parsed


class _OnlyMetadata(Input):
    metadata: Metadata


def check_metadata(metadata: Any) -> dict[str, Any]:
    """Validate metadata by itself.

    Raises:
        InvalidRequest: it is no plain JSON object, or too large.
    """
    try:
        return _OnlyMetadata.model_validate({"metadata": metadata}).metadata
    except ValidationError as error:
        raise invalid(error) from None


def invalid(error: ValidationError, *within: str) -> InvalidRequest:
    """Turn pydantic's report into one sentence a field and the list that commands are answered with.

    `within`: where in the request that lies which was validated.
    """
    if error.error_count() > _ERRORS_MAX:  # telling each would cost far more than checking them
        return InvalidRequest(f"{error.error_count()} fields are wrong, too many to name each")
    errors = tuple(
        _field_error({**entry, "loc": (*within, *entry["loc"])}) for entry in error.errors(include_url=False)
    )
    return InvalidRequest("; ".join(entry.message for entry in errors[:5]), errors)


def _field_error(entry: dict[str, Any]) -> FieldError:
    # pydantic adds the name of a union's branch to the place; the caller never wrote it.
    place = [str(part) for part in entry["loc"] if part not in _BRANCHES and not str(part).startswith("function-")]
    if "metadata" in place:
        del place[place.index("metadata") + 1 :]  # behind it are keys of the caller's, mixed with names of branches
    expected = expectation(entry)
    got = "" if entry["type"] == "missing" else f" (got {_shown(entry['input'])})"
    return FieldError(pointer(place), f"{dotted(place) or 'the request'}: {expected}{got}", expected, entry["type"])


_BRANCHES = {"FileId", "constrained-str", "str"}


def pointer(place: Sequence[str]) -> str:
    """A place in a request as a JSON Pointer."""
    return "".join("/" + part.replace("~", "~0").replace("/", "~1") for part in place)


def dotted(place: Sequence[str]) -> str:
    """A place in a request as a person would write it."""
    return "".join(f"[{part}]" if part.isdigit() else f".{part}" for part in place).removeprefix(".")


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except RecursionError:
        text = "something nested too deeply"
    return text if len(text) <= _SHOWN_MAX else f"{text[: _SHOWN_MAX - 3]}..."


def canonical_digest(document: Any) -> str:
    """SHA-256 of a JSON document in its canonical form, in hexadecimal."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def new_batch_id() -> str:
    """An id for a batch whose creator names none."""
    return f"batch-{secrets.token_hex(6)}"


def job_id(batch_id: str, position: int) -> str:
    """A job's id from its batch's and its place in it, from 1."""
    return f"{batch_id}-{position:02d}"
