"""How the value of a setting is written: in which units, with ~, or in a file that NAME_FILE names."""

from __future__ import annotations

import re
import stat
import unicodedata
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from actors.errors import SettingsError
from actors.expectations import span_of
from storage.urls import HIDDEN

IN_FILES = ("openai_api_key", "database_url", "amqp_url", "sora_headers", "web_token")
"""The settings that may stand in a file."""


def _duration(value: Any) -> Any:
    length = span_of(value) if isinstance(value, str) else value
    if isinstance(length, timedelta):
        return length
    try:
        length = timedelta(milliseconds=float(value))
    except (OverflowError, TypeError, ValueError):
        raise ValueError("must be a duration (500ms, 90s, 5m, 12h, 30d) or a number of milliseconds") from None
    if length < timedelta(0):
        raise ValueError("must not be negative")
    return length


def _words(value: Any) -> Any:
    return tuple(word.strip() for word in value.split(",") if word.strip()) if isinstance(value, str) else value


def _host(value: str) -> str:
    try:
        parts = urlsplit(f"//{value}")
        is_host = parts.netloc == value and parts.hostname and parts.port != 0
    except ValueError:  # the port is no number, or a bracket is open
        is_host = False
    if not is_host or re.search(r"[@*\s]", value):
        raise ValueError("must be hosts such as images.example or cdn.example:8443: no scheme, no path, no *")
    return value.lower().removesuffix(":443")


def at_home(path: str) -> str:
    """A path with `~` expanded: in `.env` and in containers no shell has done so."""
    if path.startswith("$"):
        raise ValueError("$ is not expanded here: use ~ for the home folder, ${NAME} in .env, or the full path")
    try:
        return str(Path(path).expanduser()) if path.startswith("~") else path
    except RuntimeError:
        raise ValueError(f"{path.partition('/')[0]} has no home folder: use the full path") from None


def without_control_characters(value: str) -> str:
    """The text itself: one that would break a header or a line is refused."""
    # A lone surrogate stands for a byte that is not UTF-8.
    if any(unicodedata.category(character) in {"Cc", "Cs"} for character in value):
        raise ValueError("contains a line break or another control character: remove it")
    return value


def one_line(secret: SecretStr) -> SecretStr:
    """The secret of one line; passed as a SecretStr, it was not stripped."""
    return SecretStr(without_control_characters(secret.get_secret_value().strip()))


Milliseconds = Annotated[timedelta, BeforeValidator(_duration)]
Positive = Annotated[Milliseconds, Field(gt=timedelta(0))]
Words = Annotated[tuple[str, ...], BeforeValidator(_words)]
Hosts = Annotated[tuple[Annotated[str, AfterValidator(_host)], ...], BeforeValidator(_words)]
"""Hosts of https URLs, in lower case, with a port where it is not 443."""


def with_files(given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings as they are given, and those that stand in files.

    Raises:
        SettingsError: a file can't be used, or a setting is given twice.
    """
    read = dict(given)
    for name in IN_FILES:
        path = given.get(f"{name}_file")
        if not path:
            continue
        if given.get(name):
            raise SettingsError(f"{name.upper()} and {name.upper()}_FILE are both set: unset one of them")
        read[name] = _read(f"{name.upper()}_FILE", str(path))
    return read


def shown_path(path: str) -> str:
    """The path of such a file for a person; hidden where it may be the secret itself, set in the wrong place."""
    try:
        is_path = path.startswith(("/", "~/", "./", "../")) or Path(path).exists()
    except (OSError, ValueError):  # too long for a path, or with NUL in it
        is_path = False
    return path if is_path else HIDDEN


def _read(name: str, path: str) -> str:
    shown = shown_path(path)
    given = f"{name}={shown if shown == HIDDEN else repr(path)}"
    try:
        text = Path(path).expanduser().read_bytes().decode("utf-8-sig").strip()
    except FileNotFoundError:
        raise SettingsError(f"{given}: there is no such file; create it, or correct the path") from None
    except UnicodeDecodeError as error:
        raise SettingsError(f"{given}: the file is not UTF-8 (byte {error.start}): save it as UTF-8") from None
    except IsADirectoryError:
        raise SettingsError(f"{given}: that is a folder: name a file in it") from None
    except (OSError, ValueError, RuntimeError) as error:
        why = getattr(error, "strerror", None) or error
        raise SettingsError(f"{given}: the file can't be read ({why}); let this user read it") from None
    if not text:
        raise SettingsError(f"{given}: the file is empty; write the value into it, or unset {name}")
    return text


def readable_by_others(settings: Any) -> Iterator[str]:
    """A sentence for each file of a secret that every user of the machine can read."""
    for name in IN_FILES:
        path = getattr(settings, f"{name}_file")
        if path is None:
            continue
        try:
            mode = Path(path).expanduser().stat().st_mode
        except OSError:
            continue
        if stat.S_ISREG(mode) and mode & stat.S_IROTH:
            yield f"{name.upper()}_FILE={path!r} can be read by every user of this machine: chmod o-r {path}"
