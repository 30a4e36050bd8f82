"""Reads the file of `SORA_PRICES`."""

from __future__ import annotations

import functools
import stat
from pathlib import Path

from actors.batch.price_tables import PriceTable, WrongTable
from actors.documents import Unreadable, load_json, load_yaml
from actors.errors import SettingsError
from actors.settings import Settings

_LARGEST = 32 * 1024 * 1024
"""Bytes; LiteLLM's table of all models has 4 MB."""


def price_table(settings: Settings) -> PriceTable:
    """The table of `SORA_PRICES`; an empty one if it is not set. A file is read once, and again once it has changed.

    Raises:
        SettingsError: the file can't be read, or is no table of prices.
    """
    path = settings.sora_prices
    if path is None:
        return PriceTable()
    try:
        found = Path(path).stat()
        if not stat.S_ISREG(found.st_mode):
            raise _wrong(path, "is not a regular file: name a JSON or YAML file of prices")
        return _read(path, (found.st_mtime_ns, found.st_size, found.st_ino, found.st_dev))
    except FileNotFoundError:
        raise _wrong(path, "there is no such file: create it, or correct the path") from None
    except (OSError, ValueError) as error:  # a NUL in the path is a ValueError
        raise _wrong(path, f"the file can't be read ({getattr(error, 'strerror', None) or error})") from None


@functools.lru_cache(maxsize=4)
def _read(path: str, _version: tuple[int, ...]) -> PriceTable:
    content = Path(path).read_bytes()
    if len(content) > _LARGEST:
        raise _wrong(path, f"the file exceeds {_LARGEST >> 20} MiB: keep only the models that you use")
    try:
        text = content.decode("utf-8-sig")
        # Any JSON object is YAML too, but YAML is read far more slowly.
        load = load_json if text.lstrip().startswith(("{", "[")) else load_yaml
        return PriceTable.read(load(text, exact=True))
    except UnicodeDecodeError as error:
        raise _wrong(path, f"the file is not UTF-8 (byte {error.start}): save it as UTF-8") from None
    except Unreadable as error:
        raise _wrong(path, f"the file is not a table of prices: {error}") from None
    except WrongTable as error:
        raise _wrong(path, str(error)) from None


def _wrong(path: str, why: str) -> SettingsError:
    return SettingsError(f"SORA_PRICES={path!r}: {why}")
