"""Secrets that a setting `NAME_FILE` names a file of, as container platforms mount them."""

from __future__ import annotations

import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from actors.errors import SettingsError
from storage.secrets import HIDDEN

IN_FILES = ("openai_api_key", "database_url", "amqp_url", "sora_headers", "web_token")
"""The settings that may stand in a file."""


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
