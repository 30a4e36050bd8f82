"""Expands a request into its videos: defaults, then each combination of the matrix, then takes. Pure but for seeds.

This happens once, when the batch is created: the drawn seeds and the filled-in texts are recorded with each job.
"""

from __future__ import annotations

import itertools
import json
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from actors.batch.field_errors import all_of, nearest, wrong_field
from actors.batch.fields import DOCUMENT_MAX_BYTES, LARGEST_SEED, PROMPT_MAX, FileId, given_twice
from actors.batch.requests import BatchVideoRequest, VideoDefaults, VideoRequest
from actors.errors import InvalidRequest

_LARGEST_DRAWN = 2**31 - 1
"""Every server accepts a seed up to this one."""
_LARGEST_BATCH = 64 * 1024 * 1024
"""Bytes of prompts, params and metadata after expansion: a short request may expand to a lot."""
_LARGEST_PROMPT = (PROMPT_MAX, f"must have 1 to {PROMPT_MAX} characters, matrix values included")
_LARGEST_DOCUMENT = (
    DOCUMENT_MAX_BYTES, f"must be at most {DOCUMENT_MAX_BYTES} bytes as JSON, matrix values included",
)  # fmt: skip
_PLACEHOLDER = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")

_CHOSEN = ("duration", "size", "model", "seed", "takes", "files", "input_reference", "metadata")
"""The fields of a video that are its own, or else the defaults'."""

Place = tuple[str, ...]
Value = str | int | float | bool


class Video(NamedTuple):
    """A video of a request, with the defaults applied."""

    place: Place
    """Its place in the request."""
    prompt: str
    duration: int | None
    size: str | None
    model: str | None
    seed: int | str | None
    takes: int
    params: Mapping[str, Any]
    files: Mapping[str, str | FileId]
    input_reference: str | FileId | None
    metadata: Mapping[str, Any]
    own: frozenset[str]
    """The fields that it sets itself, rather than by the defaults."""

    def place_of(self, field: str) -> Place:
        """The place of one of its fields in the request."""
        return (*(self.place if field in self.own else ("defaults",)), field)


class Take(NamedTuple):
    """One future job: the request to the server, and the job's metadata."""

    prompt: str
    seed: int | None
    take: int | None
    """None: its video is made once."""
    params: dict[str, Any]
    metadata: dict[str, Any]


def videos_of(request: BatchVideoRequest) -> list[Video]:
    """The videos of a request, with the defaults applied."""
    defaults = request.defaults or VideoDefaults()
    return [_with_defaults(video, defaults, ("videos", str(index))) for index, video in enumerate(request.videos)]


def _with_defaults(video: VideoRequest, defaults: VideoDefaults, place: Place) -> Video:
    own = frozenset(name for name in video.model_fields_set if getattr(video, name) is not None)
    if video.prompt == defaults.prompt:
        own -= {"prompt"}

    fields = {name: getattr(video if name in own else defaults, name) for name in _CHOSEN}
    fields |= {"takes": fields["takes"] or 1, "params": {**defaults.params, **video.params}}
    return Video(place=place, prompt=video.prompt, own=own, **fields)


class Expansion:
    """Expands videos into takes, with one matrix."""

    def __init__(self, matrix: Mapping[str, Sequence[Value]] | None) -> None:
        self._matrix = matrix
        self._size = 0

    def takes(self, video: Video) -> Iterator[Take]:
        """The takes of a video: the first name of the matrix varies slowest, the number of the take fastest.

        Raises:
            InvalidRequest: a placeholder is unknown, or a filled-in value is too large.
        """
        self._check(video)
        matrix = self._matrix or {}
        for combination in itertools.product(*matrix.values()):
            values = dict(zip(matrix, combination, strict=True))
            prompt, params, metadata = self._filled(video, values)
            params = {name: value for name, value in params.items() if value is not None}
            self._measure(video, prompt, params, metadata)
            seed = self._seed(video)
            for take in range(video.takes):
                yield Take(
                    prompt=prompt,
                    seed=None if seed is None else seed + take,
                    take=None if video.takes == 1 else take + 1,
                    params=params,
                    metadata=metadata,
                )

    def _check(self, video: Video) -> None:
        wrong = [
            wrong_field((*video.place_of("metadata"), name), "is also a name in the matrix: rename one of them")
            for name in self._matrix or ()
            if name in video.metadata
        ]
        last = LARGEST_SEED if not isinstance(video.seed, int) else video.seed + video.takes - 1
        if last > LARGEST_SEED:
            expected = (
                f"must be at most {LARGEST_SEED - video.takes + 1} for {video.takes} takes, which use consecutive seeds"
            )
            wrong.append(wrong_field(video.place_of("seed"), expected, video.seed))
        wrong += [
            wrong_field(
                video.place_of(field),
                f"can't contain {{{name}}}: placeholders work only in prompt, params and metadata",
            )
            for field in ("model", "input_reference", "files")
            for name in self._matrix or ()
            if f"{{{name}}}" in _text_of(getattr(video, field))
        ]
        if (twice := given_twice(video.files, video.params)) is not None:
            expected = f"contains {twice}, which is also in params: give only one of them"
            wrong.append(wrong_field(video.place_of("files"), expected))
        if wrong:
            raise all_of(wrong)

    def _filled(self, video: Video, values: Mapping[str, Value]) -> tuple[str, dict[str, Any], dict[str, Any]]:
        if self._matrix is None:
            return video.prompt, dict(video.params), dict(video.metadata)
        try:
            place = video.place_of("prompt")
            prompt = str(_Filling(values, _LARGEST_PROMPT).fill(video.prompt, typed=False))
            place = video.place_of("params")
            params = _Filling(values, _LARGEST_DOCUMENT).filled_in(dict(video.params))
            place = video.place_of("metadata")
            metadata = _Filling(values, _LARGEST_DOCUMENT).filled_in(dict(video.metadata))
        except _WrongTemplate as error:
            raise all_of([wrong_field(place, str(error), code="placeholder")]) from None
        return prompt, params, {**metadata, **values}

    def _measure(self, video: Video, prompt: str, params: dict[str, Any], metadata: dict[str, Any]) -> None:
        """Check that the filled-in values are not too large, each and in total."""
        if not prompt.strip() or len(prompt) > PROMPT_MAX:
            raise all_of([wrong_field(video.place_of("prompt"), f"must have 1 to {PROMPT_MAX} characters", prompt)])
        sizes = {
            name: len(json.dumps(document, ensure_ascii=False).encode()) if document else 0
            for name, document in (("params", params), ("metadata", metadata))
        }
        for name, size in sizes.items():
            if size > DOCUMENT_MAX_BYTES:
                raise all_of([wrong_field(video.place_of(name), _LARGEST_DOCUMENT[1])])
        self._size += video.takes * (len(prompt.encode()) + sum(sizes.values()))
        if self._size > _LARGEST_BATCH:
            raise InvalidRequest(
                f"the expanded batch exceeds {_LARGEST_BATCH >> 20} MiB of prompts, params and metadata: "
                "split it into several batches"
            )

    @staticmethod
    def _seed(video: Video) -> int | None:
        if video.seed == "random":
            return secrets.randbelow(_LARGEST_DRAWN + 2 - video.takes)
        return video.seed if isinstance(video.seed, int) else None


class _WrongTemplate(Exception):
    """What is wrong with the braces in a text."""


class _Filling:
    """Fills one combination into a prompt or document, and stops before that exceeds its memory limit.

    Args:
        values: of the matrix, by name.
        most: the largest length, and the sentence for the error.
    """

    def __init__(self, values: Mapping[str, Value], most: tuple[int, str]) -> None:
        self._values = values
        self._left, self._expected = most

    def filled_in(self, value: Any) -> Any:
        """A value of params or metadata with all its texts filled in; keys stay unchanged."""
        if isinstance(value, str):
            return self.fill(value)
        if isinstance(value, list):
            return [self.filled_in(each) for each in value]
        if isinstance(value, dict):
            return {name: self.filled_in(each) for name, each in value.items()}
        return value

    def fill(self, text: str, *, typed: bool = True) -> Value:
        """Replace placeholders; `typed`: a text that is exactly one becomes the value itself, such as a number."""
        whole = _PLACEHOLDER.fullmatch(text)
        if typed and whole is not None and whole[1] in self._values:
            self._take(len(_text(self._values[whole[1]])))
            return self._values[whole[1]]
        return _PLACEHOLDER.sub(self._replacement, text)

    def _replacement(self, match: re.Match[str]) -> str:
        if match[0] in ("{{", "}}"):
            return match[0][0]
        name = match[1]
        if name is None:
            raise _WrongTemplate(f"has a single {match[0]}: write {match[0] * 2} for a literal brace")
        if name not in self._values:
            near = nearest(name, self._values)
            meant = f"did you mean {{{near}}}? " if near else ""
            raise _WrongTemplate(
                f"has the unknown placeholder {{{name[:64]}}}: {meant}the matrix has {', '.join(self._values)} "
                "(write {{ and }} for literal braces)"
            )
        replacement = _text(self._values[name])
        self._take(len(replacement))
        return replacement

    def _take(self, length: int) -> None:
        self._left -= length
        if self._left < 0:
            raise _WrongTemplate(self._expected)


def _text(value: Value) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _text_of(value: Any) -> str:
    texts = value.values() if isinstance(value, Mapping) else [value]
    return " ".join(each for each in texts if isinstance(each, str))
