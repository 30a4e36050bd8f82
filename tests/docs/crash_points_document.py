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
that passes it, {kills} times in all. Where other processes then finish the batch, it also kills one of them during the
recovery. A process that lives finishes the rest, and the ledger of a server that shares no code with us judges the
result: nothing is paid for twice, no video and no event is lost.

In the code, a comment marks each point: `# crash point: NAME`.

The list is complete by observation. Each operation runs once undisturbed while every COMMIT, request, file operation,
`fsync`, publish and acknowledgement is observed. A test fails if the operation passes a point that this table does not
list for it, or if an effect occurs in a place of the code that has no point here.
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
                    f"`{point.name}`", str(point.kind), point.what, point.then, f"`{point.place.partition(':')[0]}`",
                    ", ".join(each for each in Operation if each in point.operations),
                ]
                for point in POINTS.values()
            ],
        ),
    ]  # fmt: skip
    return "\n".join(parts).rstrip("\n") + "\n"


if __name__ == "__main__":
    DOCUMENT.write_text(document())
