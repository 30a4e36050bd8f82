"""What batches and jobs cost, by the charges of their submissions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

from storage.charges import CLOCK_MARGIN, BatchCosts, Part
from storage.database import Database
from storage.ledger import BY_STATE, Ledger
from storage.records import BatchRecord

CHARGE = f"COALESCE(charge, {BY_STATE})"
SUMS = f"currency, {CHARGE}, SUM(reserved_micros), SUM(charged_micros), SUM(charged_rest), COUNT(*)"


class Costs:
    """Reads what is recorded of charges. Needs a connection, opened by the caller."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._day = Ledger(database).day

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
        """What all submissions cost, in parts, each with its group.

        Args:
            group: `day`, `model`, `batch`, or `metadata.KEY` of the job, else of its batch; None: no group.
            since: only those whose intent was recorded at this time or later.
        """
        if group in (None, "day", "model"):
            place = {"day": 0, "model": 1}.get(group or "")
            for day, model, *row in self._by_day(since):
                key = None if place is None else (day, model)[place]
                yield (None if key is None else str(key)), part(row)
            return
        expression, parameters = self._group(group or "")
        where, more = self._since(since)
        sql = f"SELECT {expression}, {SUMS} FROM submissions {where}GROUP BY 1, currency, {CHARGE} ORDER BY 1"
        for key, *row in self._database.execute(sql, [*parameters, *more]).fetchall():
            yield (None if key is None else str(key)), part(row)

    def _by_day(self, since: float | None) -> list[tuple[object, ...]]:
        """Sums by day, model, currency and state: all of it in the order of one index."""
        where, parameters = self._since(since)
        names = "day, model, currency, charge"
        sums = "SUM(reserved_micros), SUM(charged_micros), SUM(charged_rest), COUNT(*)"
        recorded = f"SELECT {names}, {sums} FROM submissions {where}GROUP BY {names} ORDER BY {names}"
        rows = list(self._database.execute(recorded, parameters).fetchall())
        if all(charge is not None for _, _, _, charge, *_ in rows):
            return rows
        of_job = "(SELECT j.model FROM jobs j WHERE j.id=submissions.job_id)"
        filled_in = (
            f"SELECT COALESCE(day, {self._day}), COALESCE(model, {of_job}), currency, {CHARGE}, {sums} "
            f"FROM submissions {where or 'WHERE TRUE '}AND charge IS NULL GROUP BY 1, 2, 3, 4"
        )
        of_before = self._database.execute(filled_in, parameters).fetchall()
        merged = [*(row for row in rows if row[3] is not None), *of_before]
        return sorted(merged, key=lambda row: tuple(each or "" for each in row[:4]))

    def flagged(self, since: float | None) -> int:
        """How many submissions have a flag: a told price is not believed, or exceeds what was reserved."""
        where, parameters = self._since(since)
        sql = f"SELECT COUNT(*) FROM submissions {where or 'WHERE TRUE '}AND doubt IS NOT NULL"
        return int(self._database.execute(sql, parameters).fetchone()[0])

    def _since(self, since: float | None) -> tuple[str, list[object]]:
        if since is None:
            return "", []
        # The version before records no day.
        day = datetime.fromtimestamp(since, UTC).date().isoformat()
        return "WHERE (day>=? OR day IS NULL) AND intended_at>=? ", [day, since]

    def _group(self, group: str) -> tuple[str, list[object]]:
        if group == "batch":
            return "batch_id", []
        key = group.removeprefix("metadata.")
        if self._database.postgresql:
            found = "SELECT metadata ->> ?::text FROM {0} WHERE id=submissions.{1}"
        else:
            found = "SELECT value FROM {0}, json_each({0}.metadata) WHERE {0}.id=submissions.{1} AND json_each.key=?"
        of_job, of_batch = found.format("jobs", "job_id"), found.format("batches", "batch_id")
        return f"COALESCE(({of_job}), ({of_batch}))", [key, key]

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
    whole = [None if number is None else int(str(number)) for number in numbers]
    return Part(currency, charge, whole[0], whole[1], whole[2], whole[3] or 0)  # type: ignore[arg-type]
