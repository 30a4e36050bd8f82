"""Names and values as lines of a form, one NAME=VALUE each: what is written is read as itself again. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from actors.batch.field_errors import all_of, wrong_field
from actors.errors import FieldError

_DECODER = json.JSONDecoder()


def lines_with(values: Mapping[str, Any]) -> str:
    """Names and values, one pair per line."""
    return "\n".join(f"{_name(name)}={_written(value)}" for name, value in values.items())


def _name(name: str) -> str:
    """A name that is read as itself again: one that could be taken for something else is a JSON string."""
    plain = name == name.strip() and name and not name.startswith('"') and not any(mark in name for mark in "=\n\r")
    return name if plain else json.dumps(name, ensure_ascii=False)


def _written(value: Any) -> str:
    """A value that is read as itself again."""
    if isinstance(value, str) and value == value.strip() and "\n" not in value and value_of(value) == value:
        return value
    return json.dumps(value, ensure_ascii=False)


def lines_of(text: str) -> list[str]:
    """The lines of a text that say something; only LF and CRLF end one."""
    return [line for line in (each.removesuffix("\r").strip() for each in text.split("\n")) if line]


def metadata_patch(form: Mapping[str, str]) -> dict[str, Any]:
    """What a form changes in a batch's metadata, as a JSON Merge Patch: what others changed meanwhile stays.

    Args:
        form: `metadata` as it was filled in, and as it was `before`.

    Raises:
        InvalidRequest: a line is no NAME=VALUE.
    """
    errors: list[FieldError] = []
    before, after = (values_in(form.get(name, ""), "/metadata", "team=blue", errors) for name in ("before", "metadata"))
    if errors:
        raise all_of(errors)
    return _patch(before, after)


def _patch(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    patch: dict[str, Any] = {name: None for name in before if name not in after}
    for name, value in after.items():
        there = before.get(name)
        if name not in before or value != there or type(value) is not type(there):
            both = isinstance(value, dict) and isinstance(there, dict)
            patch[name] = _patch(there, value) if both and isinstance(there, dict) else value
    return patch


def values_in(text: str, place: str, example: str, errors: list[FieldError]) -> dict[str, Any]:
    """Names, and values that are JSON, or else text."""
    return {name: value_of(value) for name, value in pairs_in(text, place, example, errors).items()}


def pairs_in(text: str, place: str, example: str, errors: list[FieldError]) -> dict[str, str]:
    """Names and values as they are written; what is no such line is added to the errors."""
    pairs: dict[str, str] = {}
    for line in lines_of(text):
        name, equals, value = _parted(line)
        if not (equals and name):
            errors.append(wrong_field((place[1:].split("/")), f"each line must be NAME=VALUE, such as {example}", line))
        else:
            pairs[name] = value.strip()
    return pairs


def _parted(line: str) -> tuple[str, str, str]:
    """Name, equals sign and value of a line; a name may be a JSON string."""
    if line.startswith('"'):
        with suppress(ValueError, RecursionError):
            name, end = _DECODER.raw_decode(line)
            between, equals, value = line[end:].partition("=")
            if not between.strip():
                return name, equals, value
    name, equals, value = line.partition("=")
    return name.strip(), equals, value


def value_of(text: str) -> Any:
    """The value that a text is in JSON; the text itself, where it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
