"""Prints docs/states.md from the tables of the state machine: `python -m tests.docs.states_document` writes it.

The meanings are the docstrings beneath the states and moves, read from their source: whoever changes one changes
the document.
"""

import ast
import inspect
from collections.abc import Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any

from actors.batch.transitions import BATCH_MOVES, JOB_MOVES, BatchMove, JobMove
from storage.states import (
    FINAL_BATCH,
    FINAL_JOB,
    IN_FLIGHT_JOB,
    LIVE_SUBMISSION,
    UNRESOLVED,
    BatchStatus,
    JobStatus,
    SubmissionState,
)
from tests.docs.markdown import table

DOCUMENT = Path(__file__).parents[2] / "docs" / "states.md"

Moves = Mapping[tuple[Any, Any], Any]

_OBVIOUS = {
    (JobMove, "FAIL"): "It ended with the recorded error.",
    (JobMove, "CANCEL"): "Its batch was cancelled.",
    (BatchMove, "CANCEL"): "A person or a program cancelled it.",
    (BatchMove, "RETRY"): "A person or a program retries what failed or was cancelled.",
}
"""The moves whose names say enough in the code."""

_INTRODUCTION = """\
# The states of a batch, a job and a submission

Printed from the tables of the state machine (`actors/batch/transitions.py`, `storage/states.py`) by
`python -m tests.docs.states_document`; a test fails when this document is stale.

A state and a move lead to a state. `-` in the tables below: the move is refused and changes nothing. A state that leads
to itself: the move is a duplicate that can arrive, or changes only what is recorded beside the state (the progress, the
remote id). The diagrams omit these.
"""

_SUBMISSIONS = """\
A submission is one attempt to pay for a job's video. Its state is kept apart from the job's: whether a POST may go out
is always read from the submissions. The database allows at most one *live* submission per job, so a second intent can't
even be recorded while the outcome of the first is unknown, or while its video exists and has not failed.
"""


def document() -> str:
    """The whole of docs/states.md."""
    parts = [
        _INTRODUCTION,
        "## Batch\n",
        _states(BatchStatus, {"final": FINAL_BATCH}),
        _moves(BatchMove),
        _diagram(BatchStatus, BATCH_MOVES),
        _table(BatchStatus, BatchMove, BATCH_MOVES),
        "## Job\n",
        _states(JobStatus, {"final": FINAL_JOB, "in flight": IN_FLIGHT_JOB}),
        _moves(JobMove),
        _diagram(JobStatus, JOB_MOVES),
        _table(JobStatus, JobMove, JOB_MOVES),
        "## Submission\n",
        _SUBMISSIONS,
        _states(SubmissionState, {"live": LIVE_SUBMISSION, "unresolved": UNRESOLVED}),
    ]
    return "\n".join(parts)


def meanings(words: type[StrEnum]) -> dict[str, str]:
    """What each member means: the string beneath it in the class's source."""
    body = ast.parse(inspect.getsource(words)).body[0]
    assert isinstance(body, ast.ClassDef)
    found: dict[str, str] = {}
    for statement, beneath in zip(body.body, [*body.body[1:], None], strict=True):
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            name = statement.targets[0].id
            found[words[name]] = _text(beneath) or _OBVIOUS[words, name]
    return found


def _text(statement: ast.stmt | None) -> str:
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
        return " ".join(str(statement.value.value).split())
    return ""


def _states(words: type[StrEnum], groups: Mapping[str, frozenset[Any]]) -> str:
    rows = [
        [f"`{word}`", ", ".join(name for name, members in groups.items() if word in members), meaning]
        for word, meaning in meanings(words).items()
    ]
    return table(["state", "kind", "meaning"], rows)


def _moves(words: type[StrEnum]) -> str:
    return table(["move", "meaning"], [[f"`{word}`", meaning] for word, meaning in meanings(words).items()])


def _diagram(states: type[StrEnum], moves: Moves) -> str:
    lines = ["```mermaid", "stateDiagram-v2", f"    [*] --> {next(iter(states))}"]
    lines += [f"    {before} --> {after}: {', '.join(names)}" for (before, after), names in _arrows(states, moves)]
    return "\n".join([*lines, "```", ""])


def _arrows(states: type[StrEnum], moves: Moves) -> Iterator[tuple[tuple[str, str], list[str]]]:
    """The moves between each two states; a self-loop is a duplicate, and not drawn."""
    arrows: dict[tuple[str, str], list[str]] = {}
    for (before, move), after in moves.items():
        if after is not before:
            arrows.setdefault((before, after), []).append(move)
    order = list(states)
    yield from sorted(arrows.items(), key=lambda arrow: [order.index(states(state)) for state in arrow[0]])


def _table(states: type[StrEnum], names: type[StrEnum], moves: Moves) -> str:
    rows = [[f"`{move}`", *(moves.get((state, move), "-") for state in states)] for move in names]
    return table(["move \\ state", *(f"`{state}`" for state in states)], rows)


if __name__ == "__main__":
    DOCUMENT.write_text(document())
