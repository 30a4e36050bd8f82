"""Which settings hold, and where each came from. Secrets are masked."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from dotenv import dotenv_values
from pydantic import SecretStr

from actors.settings import Settings, masked_url

_URLS = {"OPENAI_BASE_URL", "DATABASE_URL", "AMQP_URL"}
_KEY = "OPENAI_API_KEY"


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting as it holds."""

    name: str
    value: str | None
    """For a person; None: unset."""
    source: str
    """`environment`, `.env` or `default`."""


def settings_table(settings: Settings | None) -> list[Setting]:
    """All settings; with None (they can't be used) as they were written."""
    environment = _known(os.environ)
    file = _known(dotenv_values(".env") if os.path.isfile(".env") else {})  # noqa: PTH113
    return [_setting(field, settings, environment, file) for field in Settings.model_fields]


def _known(values: Mapping[str, str | None]) -> dict[str, str]:
    """By upper-case name, as the settings find them; an empty one counts as unset."""
    return {name.upper(): value for name, value in values.items() if value}


def _setting(field: str, settings: Settings | None, environment: dict[str, str], file: dict[str, str]) -> Setting:
    name = field.upper()
    source = "environment" if name in environment else ".env" if name in file else "default"
    if settings is not None:
        value = _shown(getattr(settings, field))
    else:
        value = environment.get(name) or file.get(name) or _shown(Settings.model_fields[field].default)
    return Setting(name, _masked(name, value), source)


def _shown(value: Any) -> str | None:
    if isinstance(value, timedelta):
        return f"{value.total_seconds() * 1000:.0f}"
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, tuple):
        return ",".join(value) or None
    return None if value is None else str(value)


def _masked(name: str, value: str | None) -> str | None:
    if value is None:
        return None
    return "***" if name == _KEY else masked_url(value) if name in _URLS else value
