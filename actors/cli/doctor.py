"""The command `doctor`: the effective settings, and a check of every dependency."""
# ruff: noqa: FBT002  (a command's options are its parameters)

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from actors.cli.opening import as_written, known_secrets, misspelt, prepare
from actors.cli.options import Json, Verbose
from actors.errors import SettingsError

if TYPE_CHECKING:
    from actors.cli.checks import Check
    from actors.settings import Settings
    from storage.secrets import Secrets

PACKAGES = (
    "sora-batch", "pykka", "peewee", "aiohttp", "pydantic", "dramatiq", "pika", "typer", "rich",
    "av", "psycopg", "obstore", "prometheus-client",
)  # fmt: skip


def doctor(
    declare: Annotated[
        bool, typer.Option("--declare", help="Declare missing exchanges and queues in RabbitMQ.")
    ] = False,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Show the effective settings and check every dependency.

    Says where each setting came from; checks the database, the video folder, the server and RabbitMQ.

    Exit codes: 0 everything works, 1 something that is needed does not.
    """
    from dataclasses import replace

    from actors.cli.checks import Check, all_checks

    try:
        settings = prepare(verbose=verbose)
        checks = list(all_checks(settings, declare=declare))
    except SettingsError as error:
        settings, checks = None, [Check("settings", ok=False, message=str(error))]
    checks[:0] = [Check("settings", ok=True, message=sentence) for sentence in misspelt()]
    secrets = known_secrets(settings)
    checks = [replace(check, message=secrets.mask(check.message)) for check in checks]
    table, versions = settings_table(settings), _versions()
    ok = all(check.ok for check in checks)
    if json:
        _print_json(ok, table, versions, checks)
    else:
        _print(table, versions, checks)
    raise typer.Exit(0 if ok else 1)


def _print_json(ok: bool, table: Sequence[Setting], versions: dict[str, str], checks: Sequence[Check]) -> None:  # noqa: FBT001
    from dataclasses import asdict

    from actors.cli.text import print_json

    settings = [asdict(setting) for setting in table]
    print_json({"ok": ok, "settings": settings, "versions": versions, "checks": [asdict(check) for check in checks]})


def _print(table: Sequence[Setting], versions: dict[str, str], checks: Sequence[Check]) -> None:
    from actors.cli.text import print_table, say

    print_table(
        ["setting", "value", "from"],
        [[setting.name, "(unset)" if setting.value is None else setting.value, setting.source] for setting in table],
    )
    typer.echo()
    say(", ".join(f"{name} {version}" for name, version in versions.items()))
    typer.echo()
    print_table([], [["ok" if check.ok else "PROBLEM", check.name, check.message] for check in checks])


def _versions() -> dict[str, str]:
    import platform
    import sqlite3
    from importlib.metadata import PackageNotFoundError, version

    versions = {"Python": platform.python_version(), "SQLite": sqlite3.sqlite_version}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return versions


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
    from actors.settings import Settings

    environment, file = as_written()
    secrets = known_secrets(settings)
    return [_setting(field, settings, environment, file, secrets) for field in Settings.model_fields]


def _setting(
    field: str, settings: Settings | None, environment: dict[str, str], file: dict[str, str], secrets: Secrets
) -> Setting:
    from actors.settings import Settings

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
    from pydantic import SecretStr

    if isinstance(value, timedelta):
        return f"{value.total_seconds() * 1000:.0f}"
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, tuple):
        return ",".join(value) or None
    return None if value is None else str(value)


def _masked(name: str, value: str | None, secrets: Secrets) -> str | None:
    from actors.settings import SECRET, URLS
    from actors.settings.values import IN_FILES, shown_path
    from actors.transport import masked_headers
    from storage.urls import HIDDEN, masked_url

    if value is None:
        return None
    if name == "SORA_HEADERS":
        return masked_headers(value, HIDDEN)
    if name.removesuffix("_FILE").lower() in IN_FILES and name.endswith("_FILE"):
        return shown_path(value)
    return HIDDEN if name in SECRET else masked_url(value) if name in URLS else secrets.mask(value)
