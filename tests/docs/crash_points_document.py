"""Prints docs/crash-points.md from the table of crash points: `python -m tests.docs.crash_points_document` writes it."""

from pathlib import Path

from tests.docs.markdown import table
from tests.docs.states_document import meanings
from tests.integration.crash_points import POINTS, Kind, Operation, kills

DOCUMENT = Path(__file__).parents[2] / "docs" / "crash-points.md"

_INTRODUCTION = """\
# Crash points

Every place where a process can die between two effects, and the operations that pass it. Printed from
`tests/integration/crash_points.py` by `python -m tests.docs.crash_points_document`; a test fails when it is stale.

`tests/integration/test_crash_points.py` kills a real process with SIGKILL before and after each point of each operation
that passes it, {kills} times in all, and where the batch is then made to its end by others, another process during that
recovery. What is left is finished by one that lives, and judged by the ledger of a server that shares no code with us:
nothing is paid for twice, nothing is lost, and everything is told.

The list is complete by observation. Each operation is done once undisturbed while every COMMIT, request, file operation,
`fsync`, publishing and acknowledgement is watched: a point that it passes and that is not said here to be passed by it
makes a test fail, and so does an effect in a place of the code without a name here.
"""


def document() -> str:
    """The whole of docs/crash-points.md."""
    count = sum(len(kills(operation)) for operation in Operation)
    parts = [
        _INTRODUCTION.format(kills=count),
        "## Kinds\n",
        table(["kind", "where exactly"], [[str(kind), text] for kind, text in meanings(Kind).items()]),
        "## Operations\n",
        table(
            ["operation", "what the process does", "kills"],
            [[f"`{each}`", text, str(len(kills(Operation(each))))] for each, text in meanings(Operation).items()],
        ),
        "## Points\n",
        table(
            ["point", "kind", "what is done", "what follows", "in the code", "passed by"],
            [
                [
                    f"`{point.name}`", str(point.kind), point.what, point.then, f"`{point.place}`",
                    ", ".join(each for each in Operation if each in point.operations),
                ]
                for point in POINTS.values()
            ],
        ),
    ]  # fmt: skip
    return "\n".join(parts).rstrip("\n") + "\n"


if __name__ == "__main__":
    DOCUMENT.write_text(document())
