"""Opens what a command works with: the settings and the log, the service or a client of another; and warns.

Light: importing it must not slow `--help` down.
"""

from __future__ import annotations

import io
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from actors.errors import Conflict, DatabaseUnusable, InvalidRequest, NotFound, SettingsError

if TYPE_CHECKING:
    from actors.rabbitmq.client.blocking import BatchClient
    from actors.service import BatchService
    from actors.settings import Settings
    from storage.secrets import Secrets

USAGE = 2
_ENV = Path(".env")
_MOST_EDITS = 2
_TELLING = 10
"""Characters: of shorter names in the environment, such as APP_URL, some other program may be the owner."""


def prepare(*, verbose: bool, default_level: str = "warning", service: bool = False) -> Settings:
    """Read the settings, start logging (at LOG_LEVEL where it is set), and warn of misspelt names.

    `service`: with LOG_FORMAT=json each line on standard error is JSON.
    """
    from actors.logs import configure
    from actors.settings import load_settings
    from actors.settings.values import readable_by_others

    try:
        settings = load_settings()
    except SettingsError:
        if service:
            begin_objects(default_level)
        raise
    level = settings.log_level if "log_level" in settings.model_fields_set else default_level
    configure("debug" if verbose else level, settings.log_format, settings.secrets, service=service)
    for sentence in (*misspelt(), *readable_by_others(settings)):
        warn(sentence)
    return settings


def begin_objects(level: str = "warning") -> bool:
    """If LOG_FORMAT is json, have each line on standard error be an object, before the settings are known."""
    from actors.logs import configure

    environment, file = as_written()
    if (environment.get("LOG_FORMAT") or file.get("LOG_FORMAT", "")).lower() != "json":
        return False
    configure(level, "json", known_secrets(None), service=True)
    return True


@contextmanager
def opened(
    *,
    verbose: bool,
    simulate: bool = False,
    default_level: str = "warning",
    looked_for: str | None = None,
    settings: Settings | None = None,
) -> Iterator[BatchService]:
    """The service, open for the duration of a command; `settings`: from an earlier call of `prepare`.

    `looked_for`: what must already be in the database, such as "batch 'nature'"; no database is created then.

    Raises:
        NotFound: the database does not exist.
    """
    settings = settings or prepare(verbose=verbose, default_level=default_level)
    absent = absent_database(settings) if looked_for is not None else None
    if absent is not None:
        raise NotFound(f"there is no {looked_for} in the database {absent} (the database does not exist yet)")
    from actors.service import BatchService

    with BatchService(settings, simulate=simulate) as service:
        yield service


def absent_database(settings: Settings) -> str | None:
    """Where the database would be, if it is a file that does not exist."""
    from storage.database import Database
    from storage.failures import DatabaseError

    try:
        path = Database(settings.database_url).path
    except DatabaseError as error:
        raise DatabaseUnusable(str(error)) from error
    return str(path) if path is not None and not path.exists() else None


def connected(*, verbose: bool) -> BatchClient:
    """A client of the service; the settings are read and logging is started."""
    prepare(verbose=verbose)
    from actors.rabbitmq.client.blocking import BatchClient

    return BatchClient()


@contextmanager
def or_remote(command: str, batch_id: str) -> Iterator[None]:
    """Mention `--remote` in an error if a service may have the batch: it is not in the database, or no server is set.

    Raises:
        NotFound, SettingsError: the same, with how to ask a service.
    """
    from actors.settings import load_settings

    try:
        yield
    except (NotFound, SettingsError) as error:
        unknown = isinstance(error, SettingsError) or "no batch" in str(error)
        if not unknown or load_settings().amqp_url is None:
            raise
        way_out = f"to ask a service through RabbitMQ: sora-batch {command} {batch_id} --remote"
        kind = SettingsError if isinstance(error, SettingsError) else NotFound  # a subclass takes no text
        raise kind(f"{error}; {way_out}") from None


def exit_code(error: Exception) -> int:
    """The exit code of a command that ends with an error."""
    return USAGE if isinstance(error, InvalidRequest | NotFound | Conflict | DatabaseUnusable) else 1


def warn(text: str, *, level: int = logging.WARNING, action: str | None = None) -> None:
    """Print a sentence on standard error, with secrets masked: it may quote an error.

    `level`, `action`: of the line of the log that it is, where a service logs JSON.
    """
    from actors.cli.text import clean, fold, terminal_width
    from actors.logs import masked, tell

    if tell(text, level, action):
        return
    sentence, width = f"sora-batch: {clean(masked(text))}", terminal_width(sys.stderr)
    typer.echo(sentence if width is None else fold(sentence, width), err=True)


def known_secrets(settings: Settings | None) -> Secrets:
    """The secrets; with None, those of the settings as they were written."""
    if settings is not None:
        return settings.secrets
    from actors.settings import SECRET, URLS
    from actors.transport import secrets_in
    from storage.secrets import Secrets

    written = [given for values in as_written() for given in values.items()]
    words = [value for name, value in written if name in SECRET]
    headers = [word for name, value in written if name == "SORA_HEADERS" for word in secrets_in(value)]
    return Secrets([*words, *headers], [value for name, value in written if name in URLS])


def misspelt() -> Iterator[str]:
    """A sentence per name that is almost one of ours: in `.env`, and in the environment unless it may be another's."""
    from actors.settings import GENERAL, Settings

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


def as_written() -> tuple[dict[str, str], dict[str, str]]:
    """What the environment, and `.env`, say for settings, right or wrong: by upper-case name, without empty ones."""
    return _set(os.environ), _set(_file())


def _file() -> Mapping[str, str | None]:
    """The contents of `.env`; invalid UTF-8 in it is refused elsewhere."""
    if not _ENV.is_file():
        return {}
    from dotenv import dotenv_values

    return dotenv_values(stream=io.StringIO(_ENV.read_text("utf-8-sig", "replace")))


def _set(values: Mapping[str, str | None]) -> dict[str, str]:
    return {name.upper(): value.strip() for name, value in values.items() if value and value.strip()}
