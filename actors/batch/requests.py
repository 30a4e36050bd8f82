"""Requests (pydantic).

Snake case on the wire; camelCase is accepted for field names too, but not for the keys of `metadata`, `params`,
`files` and `matrix`.
"""

from __future__ import annotations

import hashlib
import json
import math
import secrets
from typing import Annotated, Any, Self

from pydantic import (
    BeforeValidator,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from actors.batch.field_errors import invalid
from actors.batch.fields import (
    Budgets,
    FileId,
    Files,
    Input,
    MatrixName,
    MatrixValue,
    Metadata,
    Params,
    Prompt,
    Seed,
    Takes,
    Text,
    Whole,
    budget_document,
    given_twice,
    no_boolean,
)
from actors.errors import FieldError, InvalidRequest
from actors.expectations import ID_PATTERN, SIZE_PATTERN

_COUNTED = 10**12
"""Videos: larger counts are not spelled out."""


class VideoDefaults(Input):
    """Defaults for the videos of a batch: each applies to the videos that do not set the field themselves."""

    prompt: Prompt | None = None
    duration: Whole | None = None
    """Seconds."""
    seconds: Annotated[Whole | None, Field(exclude=True)] = None
    """The Videos API's own name for `duration`: give only one of the two."""
    size: Annotated[str, Field(pattern=SIZE_PATTERN)] | None = None
    """`<width>x<height>` in pixels."""
    model: Annotated[Text, Field(min_length=1, max_length=256)] | None = None
    seed: Seed | None = None
    """`"random"`: drawn and recorded for each video and combination when the batch is created."""
    takes: Takes | None = None
    """How many videos to make from the same request; with a seed they use seed, seed + 1, ..."""
    params: Params = Field(default_factory=dict)
    """Server-specific fields, such as `negative_prompt` or `fps`; null removes a default."""
    files: Files = Field(default_factory=dict)
    """Server-specific files by field, such as `last_frame`; each is given like `input_reference`."""
    input_reference: Text | FileId | None = None
    """A path (library and command line only), a data URL, an https URL on an allowed host, or `{file_id}`."""
    metadata: Metadata = Field(default_factory=dict)

    @field_validator("seconds")
    @classmethod
    def _one_of_both(cls, seconds: int | None, info: ValidationInfo) -> int | None:
        if seconds is not None and info.data.get("duration") is not None:
            raise ValueError("means the same as duration: give only one of them")
        return seconds

    @field_validator("files")
    @classmethod
    def _no_param(cls, files: dict[str, str | FileId], info: ValidationInfo) -> dict[str, str | FileId]:
        params = info.data.get("params", {})
        twice = given_twice(files, params)
        if twice is not None:
            raise ValueError(f"contains {twice}, which is also in params: give only one of them")
        return files

    @model_validator(mode="after")
    def _told_as_duration(self) -> Self:
        """Both names make the same request."""
        if self.seconds is not None:
            self.__dict__.update(duration=self.seconds, seconds=None)  # frozen for everyone else
            self.__pydantic_fields_set__.add("duration")
        return self


class VideoRequest(VideoDefaults):
    """One video to make. Defaults for unset fields, in order: `defaults`, the settings, the server's own."""

    prompt: Prompt


def _with_prompt(video: Any, prompt: Any) -> Any:
    return video | {"prompt": prompt} if isinstance(video, dict) and video.get("prompt") is None else video


class BatchVideoRequest(Input):
    """A batch: videos that belong together."""

    videos: Annotated[list[VideoRequest], Field(min_length=1)]
    defaults: VideoDefaults | None = None
    """Defaults for the fields that a video does not set; `params` are merged key by key."""
    matrix: (
        Annotated[dict[MatrixName, Annotated[list[MatrixValue], Field(min_length=1)]], Field(min_length=1)] | None
    ) = None
    """Lists of values by name: each video is made once per combination, with `{name}` replaced by its value."""
    batch_name: Annotated[Text, Field(max_length=256)] | None = None
    metadata: Metadata = Field(default_factory=dict)
    id: Annotated[str, Field(pattern=ID_PATTERN)] | None = None
    concurrency: Whole | None = None
    timeout_ms: Annotated[int, Field(ge=0, le=10**10), BeforeValidator(no_boolean)] | None = None
    """Milliseconds per round of the batch; 0: no limit."""
    budget: Budgets | None = None
    """The most that the batch may use, with one entry per unit."""

    @model_validator(mode="before")
    @classmethod
    def _default_prompt(cls, given: Any) -> Any:
        """Give videos without a prompt that of `defaults`: from here on every video has one."""
        defaults = given.get("defaults") if isinstance(given, dict) else None
        prompt = defaults.get("prompt") if isinstance(defaults, dict) else None
        if prompt is None or not isinstance(given.get("videos"), list):
            return given
        return {**given, "videos": [_with_prompt(video, prompt) for video in given["videos"]]}

    @classmethod
    def parse(cls, request: Self | dict[str, Any], *, max_size: int) -> Self:
        """Validate a request.

        Raises:
            InvalidRequest: with one entry per invalid field.
        """
        try:
            parsed = request if isinstance(request, cls) else cls.model_validate(request)
        except ValidationError as error:
            raise invalid(error) from None
        except RecursionError:
            raise InvalidRequest("the request is nested too deeply") from None
        if parsed.size > max_size:
            expected = f"at most {max_size} videos (BATCH_MAX_SIZE)"
            message = f"videos: {parsed.size_in_words} are too many, expected {expected}"
            raise InvalidRequest(message, (FieldError("/videos", message, expected, "too_long"),))
        return parsed

    @property
    def size(self) -> int:
        """The number of jobs: videos x combinations x takes."""
        usual = (self.defaults.takes if self.defaults else None) or 1
        return self.combinations * sum(video.takes or usual for video in self.videos)

    @property
    def combinations(self) -> int:
        """The number of combinations of the matrix."""
        return math.prod(map(len, (self.matrix or {}).values()))

    @property
    def size_in_words(self) -> str:
        """Its size, and how it is made up."""
        videos = f"{len(self.videos)} video{'s' if len(self.videos) > 1 else ''}"
        if self.size == len(self.videos):
            return videos
        if self.size > _COUNTED:  # a matrix of many names can have a count of thousands of digits
            return f"{videos} x the combinations of the matrix = more than {_COUNTED} videos"
        of_matrix = f" x {self.combinations} combinations" if self.combinations > 1 else ""
        takes = self.size // self.combinations
        of_takes = f" ({takes} with their takes)" if takes != len(self.videos) else ""
        return f"{videos}{of_takes}{of_matrix} = {self.size} videos"


class _OnlyMetadata(Input):
    metadata: Metadata


def check_metadata(metadata: Any) -> dict[str, Any]:
    """Validate metadata alone.

    Raises:
        InvalidRequest: it is not a plain JSON object, or is too large.
    """
    try:
        return _OnlyMetadata.model_validate({"metadata": metadata}).metadata
    except ValidationError as error:
        raise invalid(error) from None


class _OnlyBudget(Input):
    budget: Budgets


def check_budget(budget: Any) -> list[dict[str, Any]]:
    """Validate a budget alone: one entry or a list, which may be empty.

    Raises:
        InvalidRequest: an entry is no amount with a unit.
    """
    try:
        return budget_document(_OnlyBudget.model_validate({"budget": budget}).budget) or []
    except ValidationError as error:
        raise invalid(error) from None


def canonical_digest(document: Any) -> str:
    """SHA-256 of the canonical form of a JSON document, in hexadecimal."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def new_batch_id() -> str:
    """An id for a batch whose request has none."""
    return f"batch-{secrets.token_hex(6)}"
