"""Reports of what was spent (pydantic)."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Self

from actors.batch.job_views import Cost, Output
from actors.errors import InvalidRequest
from actors.expectations import span_of
from storage.charges import Part, cost_of

GROUPS = ("day", "model", "batch")
GROUPED_BY = "day, model, batch or metadata.KEY"
SINCE = "a span such as 30d, or a date such as 2026-11-01"


class Budget(Output):
    """A ceiling of the whole database, with what counts against it: millionths of its unit."""

    scope: str
    """`day`, `month` or `total`."""
    period: str | None
    """The UTC day or month."""
    unit: str
    ceiling_micros: int
    used_micros: int


class CostGroup(Output):
    """What the submissions of one group cost."""

    key: str | None
    """The day, model, batch or value of the metadata; null: it has none."""
    submissions: int
    """Those that count: released ones do not."""
    cost: list[Cost]


class CostReport(Output):
    """What submissions cost, with one entry per currency."""

    since: datetime | None
    by: str | None
    submissions: int
    """Those that count: released ones do not."""
    cost: list[Cost]
    groups: list[CostGroup]
    budgets: list[Budget]
    """The ceilings of the database for the current day and month."""
    flagged: int = 0
    """Submissions whose told price is not believed, or exceeds what was reserved."""

    @classmethod
    def of(
        cls,
        parts: Iterable[tuple[str | None, Part]],
        by: str | None,
        since: float | None,
        budgets: list[Budget],
        flagged: int = 0,
    ) -> Self:
        """A report of charges, each in its group."""
        every: list[Part] = []
        grouped: dict[str | None, list[Part]] = {}
        for key, part in parts:
            every.append(part)
            grouped.setdefault(key, []).append(part)
        groups = [_group(key, found) for key, found in grouped.items()] if by is not None else []
        whole = _group(None, every)
        moment = None if since is None else datetime.fromtimestamp(since, UTC)
        return cls(
            since=moment, by=by, submissions=whole.submissions, cost=whole.cost, budgets=budgets, flagged=flagged,
            groups=[group for group in groups if group.submissions],
        )  # fmt: skip


def _group(key: str | None, parts: list[Part]) -> CostGroup:
    cost = [Cost.model_construct(**each) for each in cost_of(parts)]
    return CostGroup(key=key, submissions=sum(part.number for part in parts if part.charge != "released"), cost=cost)


def read_since(text: str | None, now: float = 0.0) -> float | None:
    """When a report begins: `24h`, `30d` (before now), or a UTC date or time such as `2026-11-01`.

    Raises:
        InvalidRequest: it is neither.
    """
    if text is None:
        return None
    if (span := span_of(text)) is not None:
        return now - span.total_seconds()
    try:
        at = datetime.fromisoformat(text.strip())
    except ValueError:
        raise InvalidRequest(f"--since {text!r}: expected {SINCE}") from None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


def read_group(by: str | None) -> str | None:
    """By what a report is grouped.

    Raises:
        InvalidRequest: by something unknown.
    """
    if by is None or by in GROUPS or by.removeprefix("metadata.") not in ("", by):
        return by
    raise InvalidRequest(f"--by {by!r}: expected {GROUPED_BY}")
