"""What batches and jobs cost, by the charges of their submissions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime

from storage.budgets import BY_STATE, day_of_intent
from storage.charges import CLOCK_MARGIN, BatchCosts, Part
from storage.database import Database
from storage.records import BatchRecord

CHARGE = f"COALESCE(charge, {BY_STATE})"
_SUMS = "SUM(reserved_micros), SUM(charged_micros), SUM(charged_rest), COUNT(*)"
SUMS = f"currency, {CHARGE}, {_SUMS}"
_DAY = 86_400
_PLAIN = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)


class Costs:
    """Reads what is recorded of charges. Needs a connection, opened by the caller."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def of_batch(self, batch: BatchRecord, job_ids: Iterable[str] | None = None) -> BatchCosts:
        """What a batch and its jobs cost; `job_ids`: only these."""
        some = "" if job_ids is None else f"AND job_id {self._database.in_list}"
        parameters = [] if job_ids is None else [self._database.list_parameter(job_ids)]
        sql = (
            f"SELECT job_id, {SUMS} FROM submissions WHERE batch_id=? AND intended_at>=? {some} "
            f"GROUP BY job_id, currency, {CHARGE}"
        )
        rows = self._database.execute(sql, (batch.id, batch.created_at - CLOCK_MARGIN, *parameters)).fetchall()
        return BatchCosts((job_id, part(row)) for job_id, *row in rows)

    def by(self, group: str | None, since: float | None) -> Iterator[tuple[str | None, Part]]:
        """What all submissions cost, in parts, each with its group; sorted by it, those without one last.

        Args:
            group: `day`, `model`, `batch`, or `metadata.KEY` of the job, else of its batch; None: no group.
            since: only those whose intent was recorded at this time or later.
        """
        found = [*self._recorded(group, since), *self._of_before(group, since)]
        for key, row in sorted(found, key=lambda each: (each[0] is None, each[0] or "")):
            yield key, part(row)

    def _recorded(self, group: str | None, since: float | None) -> Iterator[tuple[str | None, Sequence[object]]]:
        """Grouped by plain columns, without an expression: the databases then know how many groups to expect."""
        where, more = self._since(since)
        column = {None: "day", "day": "day", "model": "model", "batch": "batch_id"}.get(group)
        expression, parameters, joined = f"s.{column}", list[object](), ""
        if column is None:
            expression, parameters = self._of_metadata("j.metadata", "b.metadata", group or "")
            joined = "LEFT JOIN jobs j ON j.id=s.job_id LEFT JOIN batches b ON b.id=s.batch_id"
        # By day and model all of it is in the order of one index.
        names = "s.day, s.model, s.currency, s.charge" if column in ("day", "model") else "1, 2, 3"
        sql = (
            f"SELECT {expression}, s.currency, s.charge, {_SUMS} FROM submissions s {joined} "
            f"WHERE s.charge IS NOT NULL {where}GROUP BY {names}"
        )
        for key, *row in self._database.execute(sql, [*parameters, *more]).fetchall():
            yield (None if key is None or group is None else str(key)), row

    def _of_before(self, group: str | None, since: float | None) -> Iterator[tuple[str | None, Sequence[object]]]:
        """What the version before recorded, of which the ledger was told nothing. There is an index of these."""
        expression, parameters = "NULL", list[object]()
        if group == "day":
            expression = f"COALESCE(day, {day_of_intent(self._database)})"
        elif group == "model":
            expression = "COALESCE(model, (SELECT j.model FROM jobs j WHERE j.id=submissions.job_id))"
        elif group == "batch":
            expression = "batch_id"
        elif group is not None:
            of_job = "(SELECT j.metadata FROM jobs j WHERE j.id=submissions.job_id)"
            of_batch = "(SELECT b.metadata FROM batches b WHERE b.id=submissions.batch_id)"
            expression, parameters = self._of_metadata(of_job, of_batch, group)
        later, more = ("", []) if since is None else ("AND intended_at>=? ", [since])
        sql = (
            f"SELECT {expression}, currency, {BY_STATE}, {_SUMS} FROM submissions "
            f"WHERE charge IS NULL {later}GROUP BY 1, 2, 3"
        )
        for key, *row in self._database.execute(sql, [*parameters, *more]).fetchall():
            yield (None if key is None else str(key)), row

    def flagged(self, since: float | None) -> int:
        """How many submissions have a flag: a told price is not believed, or exceeds what was reserved."""
        later, parameters = ("", []) if since is None else (" AND intended_at>=?", [since])
        sql = f"SELECT COUNT(*) FROM submissions WHERE doubt IS NOT NULL{later}"
        return int(self._database.execute(sql, parameters).fetchone()[0])

    def _since(self, since: float | None) -> tuple[str, list[object]]:
        if since is None:
            return "", []
        day = datetime.fromtimestamp(since, UTC).date().isoformat()
        if since % _DAY == 0:  # whole days: a charge belongs to its day for ever, and the index has all of it
            return "AND s.day>=? ", [day]
        return "AND s.day>=? AND s.intended_at>=? ", [day, since]

    def _of_metadata(self, of_job: str, of_batch: str, group: str) -> tuple[str, list[object]]:
        key = group.removeprefix("metadata.")
        if self._database.postgresql:
            return f"COALESCE({of_job} ->> ?::text, {of_batch} ->> ?::text)", [key, key]
        if _PLAIN.fullmatch(key):  # a path is faster, and does not name every key
            path = f'$."{key}"'
            return f"COALESCE(json_extract({of_job}, ?), json_extract({of_batch}, ?))", [path, path]
        value = "(SELECT value FROM json_each({}) WHERE key=?)"
        return f"COALESCE({value.format(of_job)}, {value.format(of_batch)})", [key, key]

    def of_batches(self, batches: Iterable[BatchRecord]) -> dict[str, BatchCosts]:
        """What each of these batches costs, by id."""
        since = [batch.id for batch in batches]
        if not since:
            return {}
        sql = (
            f"SELECT batch_id, {SUMS} FROM submissions WHERE batch_id {self._database.in_list} AND intended_at>="
            f"(SELECT b.created_at FROM batches b WHERE b.id=submissions.batch_id)-{CLOCK_MARGIN} "
            f"GROUP BY batch_id, currency, {CHARGE}"
        )
        parts: dict[str, list[tuple[str, Part]]] = {}
        for batch_id, *row in self._database.execute(sql, (self._database.list_parameter(since),)).fetchall():
            parts.setdefault(batch_id, []).append(("", part(row)))
        return {batch_id: BatchCosts(found) for batch_id, found in parts.items()}


def part(row: Iterable[object]) -> Part:
    """A row of `SUMS`; PostgreSQL gives sums as decimals."""
    currency, charge, *numbers = row
    reserved, charged, rest, count = (None if number is None else int(number) for number in numbers)  # type: ignore[call-overload]
    return Part(currency, charge, reserved, charged, rest, count or 0)  # type: ignore[arg-type]
