"""What became of the files that were fetched."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class FetchedFile(BaseModel):
    """A file that is there, with the recorded bytes."""

    model_config = ConfigDict(frozen=True)

    job_id: str
    path: str
    bytes: int
    sha256: str
    was_there: bool
    """It had been fetched before."""


class FetchProblem(BaseModel):
    """A finished file that could not be fetched, and why."""

    model_config = ConfigDict(frozen=True)

    job_id: str
    code: str
    message: str


class FetchReport(BaseModel):
    """The files of a batch in a folder. Videos that are not completed have none, and are not named."""

    model_config = ConfigDict(frozen=True)

    batch_id: str
    folder: str
    files: list[FetchedFile]
    problems: list[FetchProblem]

    @property
    def complete(self) -> bool:
        """Whether every finished file is there."""
        return not self.problems
