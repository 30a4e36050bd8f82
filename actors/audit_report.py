"""What an audit found: the differences between the records, the server and the files."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, ConfigDict

from storage.states import DeleteState, JobStatus


class _Finding(BaseModel):
    model_config = ConfigDict(frozen=True)


class ListedPrice(_Finding):
    """An amount of money that the server told."""

    currency: str
    micros: int
    """Millionths of the currency's unit, rounded once."""


class UnknownVideo(_Finding):
    """A server video that belongs to no job."""

    remote_id: str
    status: str
    prompt: str | None
    created_at: datetime | None
    age_seconds: int | None
    may_be_of: list[str]
    """Jobs with this prompt whose POST had no answer: it may have arrived late."""
    price: ListedPrice | None = None
    """What the listing says that it cost, where it tells that."""


class SurplusVideo(_Finding):
    """A video that was paid for but that no job needs: its answer came after its intent had been resolved."""

    remote_id: str
    job_id: str
    listed: bool


class MissingVideo(_Finding):
    """A job whose video the server does not list."""

    job_id: str
    remote_id: str
    status: JobStatus


class MissingFile(_Finding):
    """A completed job whose file is missing or differs from its record."""

    job_id: str
    path: str
    """Its path; of an object in a bucket, its address."""
    problem: str


class OwedDelete(_Finding):
    """A cancelled video that the server has not been made to stop: its DELETE is pending, or was given up."""

    job_id: str
    remote_id: str
    server: str
    state: DeleteState
    """`owed`, `out` (on its way), or `given_up` after a day."""
    owed_at: datetime
    answer: str | None
    """The result of the last attempt."""


class FlaggedPrice(_Finding):
    """A submission at this server whose told price is not believed, or exceeds what was reserved."""

    job_id: str
    submission_id: str
    doubt: str


class AuditReport(_Finding):
    """The differences that were found."""

    videos_listed: int
    files_compared: int
    listing_problem: str | None
    """Why the server's videos were not compared, or not all of them."""
    unknown_videos: list[UnknownVideo]
    unknown_cost: list[ListedPrice]
    """What the listing says that the unknown videos cost in all, by currency."""
    surplus_videos: list[SurplusVideo]
    missing_videos: list[MissingVideo]
    owed_deletes: list[OwedDelete]
    flagged_prices: list[FlaggedPrice]
    """They are no differences: `clean` does not count them."""
    jobs_without_file: list[MissingFile]
    files_without_job: list[str]

    @property
    def clean(self) -> bool:
        """Whether there are no differences."""
        found = (self.unknown_videos, self.surplus_videos, self.missing_videos, self.jobs_without_file)
        return not any(found) and not self.files_without_job and not self.owed_deletes
