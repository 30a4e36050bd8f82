"""The places where a process can die between two effects, and the operations that pass them: one table.

`effects` gets between them, `test_crash_points` kills a process before and after each one in each operation that
passes it, and docs/crash-points.md is printed from here. A point that an operation passes and that is not said here
to be passed by it makes a test fail, and so does an effect that no point names. Where a point is in the code, a comment
there says: see `crash_markers`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from storage.changes import Changes
from storage.states import NOTHING_MADE, JobStatus
from tests.integration.crash_markers import marked_places


class Kind(StrEnum):
    """What sort of effect it is."""

    COMMIT = "COMMIT"
    """Before: everything is written, but the COMMIT is not sent. After: it is committed, but nobody knows yet."""
    REQUEST = "request"
    """Before: nothing is sent. After: the head of the answer has arrived and is unread."""
    CALL = "call"
    """Before and after a function of ours."""
    SETTLE = "settling"
    """Before and after a message is acknowledged or returned to the broker."""


class Operation(StrEnum):
    """What a process is doing when it dies."""

    OPEN = "open"
    """Open a service on a new database."""
    CREATE = "create"
    """`create_batch`."""
    PROCESS = "process"
    """`process_batch` of a new batch to its end, and `close`."""
    PROCESS_BADLY = "process badly"
    """The same with a lost answer, a lost request and a truncated download, while the supervisor is told that the
    batch is lost as it records an intent."""
    PAY = "pay"
    """`process_batch` under budgets in money, seconds and videos and a ceiling of the database: one video fails and costs
    nothing, the server tells what each other one cost; then `settle_cost` of one. Killed where only then something happens."""
    STORE = "store"
    """`process_batch` with a bucket as the store. Killed where only then something happens."""
    TAKE_OVER = "take over"
    """`resume_batches` after the owner was killed with a video being generated, a half-written file and a POST of unknown
    outcome."""
    LET_GO = "let go"
    """`let_go` and `close` while videos are being made."""
    LET_GO_EARLY = "let go early"
    """`let_go` between the COMMIT of an intent and its POST."""
    CANCEL = "cancel"
    """`cancel_batch` after the owner was killed while two videos were being generated; the server is busy at the first DELETE."""
    CANCEL_STORED = "cancel stored"
    """`cancel_batch` and `close` with a bucket, after the owner was killed with an object put and not recorded."""
    RETRY = "retry"
    """`retry_batch` of a cancelled batch whose two videos are still being generated, to its end."""
    UPDATE = "update"
    """`update_metadata`."""
    DELETE = "delete"
    """`delete_batch` of a batch with its files."""
    DELETE_STORED = "delete stored"
    """`delete_batch` of a batch with its objects in a bucket."""
    REMOVE_OLD = "remove old"
    """`remove_files`, as VIDEO_KEEP and `prune --files` do, of the objects of a batch."""
    PRUNE = "prune"
    """`prune` and `forget_commands`."""
    PUBLISH = "publish"
    """Create and cancel a batch with `AMQP_URL` set, and `close`: its events are published."""
    LEAVE = "leave"
    """`let_go` of a batch that is not claimed yet."""
    COMMAND_CREATE = "command create"
    """Handle a `create`."""
    COMMAND_PROCESS = "command process"
    """Handle a `process`."""
    COMMAND_CANCEL = "command cancel"
    """Handle a `cancel`."""
    COMMAND_RETRY = "command retry"
    """Handle a `retry`."""
    COMMAND_REPORT = "command report"
    """Handle a `report`."""
    COMMAND_REPLAY = "command replay"
    """Handle a `replay`."""
    COMMAND_REFUSED = "command refused"
    """Refuse a `retry` of a batch that has not ended."""
    COMMAND_MALFORMED = "command malformed"
    """Refuse a message that is not a command, and put it aside."""
    COMMAND_EARLY = "command early"
    """Postpone a `process` whose batch does not exist yet."""


Values = Mapping[str, Any]


def _once(_: Values) -> int:
    return 1


@dataclass(frozen=True, slots=True)
class Point:
    """A place between two effects."""

    name: str
    kind: Kind
    what: str
    """What is done there."""
    then: str
    """What follows."""
    place: str
    """The function around its marker: `path:name`."""
    operations: frozenset[Operation] = frozenset()
    """Those that pass it."""
    counts: Callable[[Values], int] = _once
    """How many of it a call is, from its arguments (or local variables)."""


def _of_changes(counts: Callable[[Any], int]) -> Callable[[Values], int]:
    """By the argument that is a `Changes`, whatever its name."""
    return lambda values: counts(next(value for value in values.values() if isinstance(value, Changes)))


def _given_back(changes: Changes) -> int:
    """How many submissions of a step cost nothing after all."""
    made_nothing = [each.state in NOTHING_MADE or not each.charged for each in changes.outcomes]
    return sum(made_nothing) if changes.batch.budget else 0


def _moves_jobs_to(status: JobStatus) -> Callable[[Values], int]:
    """One step may move several jobs: each is one."""
    return _of_changes(lambda changes: sum(job.status is status for job in changes.jobs))


_C, _R, _F = Kind.COMMIT, Kind.REQUEST, Kind.CALL

_ROWS: list[tuple[Any, ...]] = [
    # a service and its batches
    ("schema", _C, "the tables of a new database are created", "a service opens"),
    ("prepare", _F, "VIDEO_DIR is created and tested", "the runtime starts"),
    ("create", _C, "a batch, its jobs and `batch.created` are recorded", "the caller gets it"),
    ("want", _C, "a batch is marked as wanted", "the dispatcher is told"),
    ("renew", _C, "the process's lease is renewed", "it is trusted for a while"),
    ("expire", _C, "an owner is marked as dead", "its batches are claimed"),
    ("claim", _C, "a batch is claimed: owner, epoch + 1", "its supervisor starts"),
    ("sweep", _F, "half-written files of earlier owners are removed", "the workers get their jobs"),
    # a step of a batch
    ("start", _C, "`batch.started`", "videos are started", _of_changes(lambda changes: sum(event.type == "batch.started" for event in changes.events))),
    ("beginning", _C, "that this process begins the batch: if it dies before it records anything more, the death counts", "work on the batch starts", _of_changes(lambda changes: int(changes.batch.claims < 0))),
    ("intent", _C, "an intent with its reservation, and its job as `submitting`", "a worker gets the job", _of_changes(lambda changes: len(changes.intents))),
    ("reservation", _C, "what each intent costs at most is added to each budget", "the step is recorded with it, or none of it", _of_changes(lambda changes: len(changes.intents) if changes.batch.budget else 0)),
    ("give back", _C, "a submission costs nothing: what was reserved for it is taken off each budget", "what that leaves is reserved again", _of_changes(_given_back)),
    ("price", _C, "the price that a server told, in place of what was reserved", "each budget counts it", _of_changes(lambda changes: sum(price is not None for _, _, price in changes.told))),
    ("acceptance", _C, "a job as `generating`, with its remote id", "the video is watched", _moves_jobs_to(JobStatus.GENERATING)),
    ("fetching", _C, "a job as `downloading`", "its file is downloaded", _moves_jobs_to(JobStatus.DOWNLOADING)),
    ("completion", _C, "a job as `completed`, and the next one's intent", "the next one starts", _moves_jobs_to(JobStatus.COMPLETED)),
    ("closing", _C, "the batch's end, with no owner", "the supervisor stops", _of_changes(lambda changes: int(changes.closing is not None))),
    ("recorded", _F, "the supervisor acts on what is recorded", "workers and the dispatcher are told"),
    # one video's way
    ("assign", _F, "a worker is given a job", "the POST, or the remaining steps"),
    ("post", _R, "the POST", "its answer is read"),
    ("first byte", _F, "the body of the POST leaves", "the server answers"),
    ("judge", _F, "the POST's answer is judged", "the remote id is bound"),
    ("bind", _C, "the remote id is written into the submission", "the supervisor is told"),
    ("settle", _C, "that a POST ended without an answer, and what it met", "it is resolved"),
    ("sender dead", _C, "that a submission's sender is dead", "the settle time runs"),
    ("list", _R, "a page of the server's listing", "it is matched to the open intents"),
    ("match", _C, "a submission is adopted, or its absence recorded", "its video is watched, or made"),
    ("look", _R, "a poll of a video", "another poll, or its file"),
    ("content", _R, "a video's file is requested", "it is downloaded"),
    ("open", _F, "a partial file is created", "it is written"),
    ("write", _F, "bytes are written into it", "more of them, or the check"),
    ("flush", _F, "its bytes are flushed to the disk", "it gets its name"),
    ("rename", _F, "it gets the name of its checksum", "the folder is flushed"),
    ("prepare bucket", _F, "the bucket's marker is written", "the runtime starts"),
    ("check", _F, "a received file is whole, and not in its place yet", "it gets its name, or goes into the bucket"),
    ("upload", _F, "a file is put into the bucket", "the job is recorded as completed"),
    ("clear", _F, "the partial files of an ended batch are removed, and those that no job records", "nothing"),
    ("doom", _C, "the objects of an ended batch that no job records, as to be removed", "they are removed"),
    ("remove object", _F, "an object is removed", "that is noted"),
    ("undoom", _C, "removed objects are forgotten", "nothing"),
    ("flush folder", _F, "a folder's names are flushed to the disk", "the job is recorded as completed"),
    ("discard", _F, "a file that is no longer wanted is removed", "the worker stops"),
    # letting go, ending
    ("not sent", _C, "an intent as not sent: its batch had ended", "the supervisor stops"),
    ("leave", _C, "a batch that this process does not run is released", "whoever waits is told"),
    ("withdraw", _C, "a job as `pending` again: its POST was not sent", "the batch is released", _moves_jobs_to(JobStatus.PENDING)),
    ("release", _C, "a batch loses its owner, epoch + 1", "whoever waits is told"),
    ("forget", _C, "the process is removed as an owner", "its threads end"),
    # what else may be done to a batch
    ("cancel", _C, "the batch and its open jobs as `cancelled`, epoch + 1, and the DELETEs as owed", "the server is asked to stop"),
    ("sending", _C, "a DELETE is recorded as going out", "it is sent"),
    ("DELETE", _R, "the server is asked to delete a video", "its answer is recorded"),
    ("deleted", _C, "the outcome of a DELETE is recorded", "the next one, or another attempt"),
    ("retry", _C, "the batch is wanted again, its jobs are put back", "the dispatcher is told"),
    ("word", _C, "a person's word on what a submission cost", "each budget counts it, and `job.settled` tells it"),
    ("update", _C, "other metadata, `batch.updated` recorded", "it is read back"),
    ("delete", _C, "the batch is hidden, its files are recorded as to be removed, `batch.deleted` recorded", "its files are removed"),
    ("unlink", _C, "files of a deleted batch are removed from the folder", "its rows are removed"),
    ("delete rows", _C, "the rows of a deleted batch, or some of them, are removed", "its id is free"),
    ("remove old", _C, "old files are recorded as removed, and their addresses in a bucket as to be removed", "they are removed"),
    ("removed old", _C, "removed objects are forgotten", "their batch is noted as done"),
    ("prune batches", _C, "some old batches are removed, `batch.deleted` recorded", "the next ones"),
    ("forget places", _C, "where files of batches that were deleted long ago were removed is forgotten", "the next ones"),
    ("prune owners", _C, "dead owners are forgotten", "the next ones"),
    ("prune", _C, "some old events are removed", "the next ones"),
    ("forget commands", _C, "some old commands are forgotten", "the next ones"),
    # what is told
    ("begin publishing", _C, "from here on events are published", "a service opens"),
    ("declare", _F, "the exchanges and queues are declared", "messages are taken and published"),
    ("publish", _F, "events and answers are written to the socket", "the broker confirms them"),
    ("confirm", _F, "the broker's confirm is received", "events are marked, a command is acknowledged"),
    ("mark", _C, "events are marked as published", "the next ones"),
    # commands
    ("command", _C, "the effect of a command, with the command and its answer", "the answer is published"),
    ("acknowledge", Kind.SETTLE, "a command is acknowledged", "the next one"),
    ("put elsewhere", _F, "a command is published to the unreadable or the waiting queue", "the original is acknowledged once that is confirmed"),
    ("moved", Kind.SETTLE, "the original of a moved command is acknowledged", "the next one"),
]  # fmt: skip

_MADE = (
    "prepare, renew, claim, beginning, reservation, intent, acceptance, fetching, completion, closing, recorded, assign, post, "
    "first byte, judge, bind, look, content, open, write, check, flush, rename, flush folder, forget"
)
"""What making videos passes."""
STORED = frozenset(name for name in f"want, start, {_MADE}".split(", "))
"""What making videos passes with a bucket, and with prices, too, and where it is not killed once more."""
_ANSWERED = "declare, command, publish, confirm, acknowledge"

_PASSED_BY: dict[Operation, str] = {
    Operation.OPEN: "schema",
    Operation.CREATE: "create",
    Operation.PROCESS: f"want, start, {_MADE}",
    Operation.PAY: "reservation, give back, price, word",
    Operation.STORE: "prepare bucket, check, upload, discard, completion",
    Operation.PROCESS_BADLY: f"want, start, sweep, not sent, give back, settle, list, match, discard, {_MADE}",
    Operation.TAKE_OVER: f"want, expire, sweep, sender dead, list, match, {_MADE}",
    Operation.LET_GO: "release, forget",
    Operation.LET_GO_EARLY: "withdraw, give back, release, recorded, forget",
    Operation.LEAVE: "prepare, renew, leave, forget",
    Operation.CANCEL: "prepare, renew, cancel, look, sending, DELETE, deleted, forget",
    Operation.CANCEL_STORED: "cancel, clear, doom, remove object, undoom",
    Operation.RETRY: f"retry, sweep, start, {_MADE}",
    Operation.UPDATE: "update",
    Operation.DELETE: "delete, unlink, flush folder, delete rows",
    Operation.DELETE_STORED: "delete, remove object, unlink, delete rows",
    Operation.REMOVE_OLD: "remove old, remove object, removed old",
    Operation.PRUNE: "forget places, prune batches, prune owners, prune, forget commands",
    Operation.PUBLISH: "begin publishing, create, cancel, declare, publish, confirm, mark",
    Operation.COMMAND_CREATE: f"{_ANSWERED}, mark",
    Operation.COMMAND_PROCESS: _ANSWERED,
    Operation.COMMAND_CANCEL: f"{_ANSWERED}, mark",
    Operation.COMMAND_RETRY: f"{_ANSWERED}, mark",
    Operation.COMMAND_REPORT: _ANSWERED,
    Operation.COMMAND_REPLAY: _ANSWERED,
    Operation.COMMAND_REFUSED: _ANSWERED,
    Operation.COMMAND_MALFORMED: "declare, publish, confirm, put elsewhere, moved",
    Operation.COMMAND_EARLY: "declare, publish, confirm, put elsewhere, moved",
}

_PLACES = marked_places()
if names := {row[0] for row in _ROWS} ^ _PLACES.keys():
    raise ValueError(f"to be marked in the code (`# crash point: NAME`) and said here, not only one of both: {names}")

POINTS: dict[str, Point] = {
    row[0]: Point(
        *row[:4],
        place=_PLACES[row[0]],
        operations=frozenset(each for each, names in _PASSED_BY.items() if row[0] in names.split(", ")),
        **({"counts": row[4]} if len(row) > 4 else {}),
    )
    for row in _ROWS
}


SOMETIMES: dict[Operation, frozenset[str]] = {
    # The supervisor that lost the batch has its orphans removed in the background, perhaps when it has ended.
    Operation.PROCESS_BADLY: frozenset({"clear"}),
    # So has one whose batch ended with a failed video.
    Operation.PAY: frozenset({"clear"}),
    # An owner of this host that is dead has them removed as its death is noted, perhaps when its batch has ended.
    Operation.TAKE_OVER: frozenset({"clear"}),
    Operation.RETRY: frozenset({"clear"}),
}
"""What an operation passes at some times only, so that nobody can be killed there."""

OFTEN = (
    "intent", "recorded", "assign", "post", "first byte", "judge", "bind",
    "look", "content", "open", "write", "flush", "rename", "flush folder",
)  # fmt: skip
"""Passed by each video: a process is killed at the third time, too."""


def kills(operation: Operation) -> list[tuple[str, int]]:
    """Where a process is killed in an operation: `(label, at which of its hits)`."""
    passed = [name for name, point in POINTS.items() if operation in point.operations]
    hits = [(name, 1) for name in passed]
    if operation is Operation.PROCESS:
        hits += [(name, 3) for name in OFTEN]
    if operation is Operation.OPEN:
        hits += [("schema", hit) for hit in (5, 10, 15, 20)]
    return [(f"{side} {name}", hit) for name, hit in hits for side in ("before", "after")]
