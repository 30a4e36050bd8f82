"""Handing a batch's update to the recorder, and its answer back to the supervisor."""

from __future__ import annotations

from concurrent.futures import Future

from actors.loop import tell
from actors.messages import Recorded, RecordingFailed, Ref
from storage.budgets import Refusal
from storage.changes import Changes
from storage.ledger import CeilingsChanged
from storage.recorder import Recorder
from storage.storage import Storage
from storage.timing import boottime


def record(recorder: Recorder, storage: Storage, changes: Changes, to: Ref) -> None:
    """Record an update; the supervisor is told once it is committed, or refused."""

    def write() -> tuple[bool | Refusal, float]:
        applied = storage.apply(changes)
        # The send window starts before anybody else can see the intent.
        return applied, boottime()

    def answer(future: Future[tuple[bool | Refusal, float]]) -> None:
        error = future.exception()
        if isinstance(error, CeilingsChanged):
            recorder.write(write).add_done_callback(answer)
        elif error is not None:
            tell(to, RecordingFailed(error))
        else:
            applied, stamp = future.result()
            refusal = applied if isinstance(applied, Refusal) else None
            tell(to, Recorded(stamp, refused=not applied and refusal is None, refusal=refusal))

    recorder.write(write).add_done_callback(answer)
