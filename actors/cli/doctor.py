"""The command `doctor`: the effective settings, and a check of every dependency."""
# ruff: noqa: FBT002  (a command's options are its parameters)

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from actors.cli.options import Json, Verbose, prepare
from actors.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actors.cli.checks import Check
    from actors.cli.settings_table import Setting

PACKAGES = (
    "sora-batch",
    "pykka",
    "peewee",
    "aiohttp",
    "pydantic",
    "dramatiq",
    "pika",
    "typer",
    "rich",
    "av",
    "psycopg",
    "obstore",
    "prometheus-client",
)


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
    from actors.cli.settings_table import known_secrets, misspelt, settings_table

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

    from actors.cli.table import print_json

    settings = [asdict(setting) for setting in table]
    print_json({"ok": ok, "settings": settings, "versions": versions, "checks": [asdict(check) for check in checks]})


def _print(table: Sequence[Setting], versions: dict[str, str], checks: Sequence[Check]) -> None:
    from actors.cli.table import print_table, say

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
