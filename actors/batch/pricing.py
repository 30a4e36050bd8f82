"""What a job's video costs at most, by the table of SORA_PRICES."""

from __future__ import annotations

import functools
from collections.abc import Callable

from actors.batch.assignment import Priced
from actors.batch.price_files import price_table
from actors.batch.prices import Asked, Price
from actors.settings import Settings
from storage.records import JobRecord


def pricing(settings: Settings) -> Callable[[JobRecord], Priced | None]:
    """The prices in force from now on.

    Raises:
        SettingsError: the table can't be read.
    """
    table = price_table(settings)
    if not len(table):
        return lambda _job: None

    @functools.lru_cache(maxsize=1024)
    def price(asked: Asked) -> Priced | None:
        found = table.price(asked)
        return Priced(found.currency, found.micros, found.document()) if isinstance(found, Price) else None

    return lambda job: price(asked_by(job))


def asked_by(job: JobRecord) -> Asked:
    """What determines the price of a job's video."""
    images = len(job.files) + (job.reference is not None)
    return Asked.of(job.model, job.duration, job.size, job.params, images)
