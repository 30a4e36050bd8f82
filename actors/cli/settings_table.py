"""The effective settings, the source of each, and misspelt names. Secrets are masked."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from dotenv import dotenv_values
from pydantic import SecretStr

from actors.headers import masked_headers, secrets_in
from actors.secret_files import IN_FILES, shown_path
from actors.settings import GENERAL, SECRET, URLS, Settings
from storage.secrets import HIDDEN, Secrets, masked_url

_ENV = Path(".env")
_MOST_EDITS = 2
_TELLING = 10
"""Characters: of shorter names in the environment, such as APP_URL, some other program may be the owner."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One effective setting."""

    name: str
    value: str | None
    """For a person; None: unset."""
    source: str
    """`environment`, `.env`, `default`, or the setting that names the file that it stands in."""


def settings_table(settings: Settings | None) -> list[Setting]:
    """All settings; with None (they are invalid) as they were written."""
    environment, file = _known(os.environ), _known(_file())
    secrets = known_secrets(settings)
    return [_setting(field, settings, environment, file, secrets) for field in Settings.model_fields]


def known_secrets(settings: Settings | None) -> Secrets:
    """The secrets; with None, those of the settings as they were written."""
    if settings is not None:
        return settings.secrets
    written = [given for values in (_known(os.environ), _known(_file())) for given in values.items()]
    words = [value for name, value in written if name in SECRET]
    headers = [word for name, value in written if name == "SORA_HEADERS" for word in secrets_in(value)]
    return Secrets([*words, *headers], [value for name, value in written if name in URLS])


def misspelt() -> Iterator[str]:
    """A sentence per name that is almost one of ours: in `.env`, and in the environment unless it may be another's."""
    known = [name for field in Settings.model_fields if (name := field.upper()) not in GENERAL]
    ours = tuple({f"{name.partition('_')[0]}_" for name in known})
    given = {name.upper() for name in os.environ if name.upper().startswith(ours) or len(name) >= _TELLING}
    for name in sorted(given.union(map(str.upper, _file())).difference(known, GENERAL)):
        nearest = min(known, key=lambda each: _edits(name, each))
        if _edits(name, nearest) <= _MOST_EDITS:
            yield f"unknown setting {name}; did you mean {nearest}?"


def _edits(one: str, other: str) -> int:
    """The edit distance of two names; beyond `_MOST_EDITS`, some number above it."""
    if abs(len(one) - len(other)) > _MOST_EDITS or len({*one} ^ {*other}) > 2 * _MOST_EDITS:
        return _MOST_EDITS + 1  # each edit adds and takes at most one letter
    row = list(range(len(other) + 1))
    for number, letter in enumerate(one, 1):
        last, row = row, [number]
        for column, each in enumerate(other):
            row.append(min(last[column] + (letter != each), last[column + 1] + 1, row[column] + 1))
        if min(row) > _MOST_EDITS:
            break
    return min(row) if min(row) > _MOST_EDITS else row[-1]


def as_written(name: str) -> str | None:
    """What the environment, or `.env`, says for a setting, right or wrong."""
    return _known(os.environ).get(name) or _known(_file()).get(name)


def _file() -> Mapping[str, str | None]:
    """The contents of `.env`; invalid UTF-8 in it is refused elsewhere."""
    if not _ENV.is_file():
        return {}
    return dotenv_values(stream=io.StringIO(_ENV.read_text("utf-8-sig", "replace")))


def _known(values: Mapping[str, str | None]) -> dict[str, str]:
    """By upper-case name, as the settings find them; an empty one counts as unset."""
    return {name.upper(): value.strip() for name, value in values.items() if value and value.strip()}


def _setting(
    field: str, settings: Settings | None, environment: dict[str, str], file: dict[str, str], secrets: Secrets
) -> Setting:
    name = field.upper()
    source = "environment" if name in environment else ".env" if name in file else "default"
    if source == "default" and f"{name}_FILE" in environment | file:
        source = f"{name}_FILE"
    if settings is not None:
        value = _shown(getattr(settings, field))
    else:
        value = environment.get(name) or file.get(name) or _shown(Settings.model_fields[field].default)
    return Setting(name, _masked(name, value, secrets), source)


def _shown(value: Any) -> str | None:
    if isinstance(value, timedelta):
        return f"{value.total_seconds() * 1000:.0f}"
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, tuple):
        return ",".join(value) or None
    return None if value is None else str(value)


def _masked(name: str, value: str | None, secrets: Secrets) -> str | None:
    if value is None:
        return None
    if name == "SORA_HEADERS":
        return masked_headers(value, HIDDEN)
    if name.removesuffix("_FILE").lower() in IN_FILES and name.endswith("_FILE"):
        return shown_path(value)
    return HIDDEN if name in SECRET else masked_url(value) if name in URLS else secrets.mask(value)
