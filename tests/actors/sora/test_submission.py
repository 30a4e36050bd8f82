"""What a Submitter does where the right moment can't be had from a real server."""

from collections.abc import Iterator
from typing import Any
from unittest.mock import Mock

import pytest

from actors.errors import ErrorCode, Failure, SoraError
from actors.loop import IOLoop
from actors.settings import Settings
from actors.sora.client import VideoSpec
from actors.sora.submission import Bound, LeaseMargin, Submitter
from storage.changes import Storage
from storage.database import Database
from storage.recorder import Recorder
from storage.records import SubmissionRecord
from storage.states import SubmissionState
from tests.builders import PROVIDER, an_intent


@pytest.fixture
def recorder(database: Database) -> Iterator[Recorder]:
    recorder = Recorder(database)
    yield recorder
    recorder.close()


@pytest.fixture
def io() -> Iterator[IOLoop]:
    io = IOLoop()
    yield io
    io.close()


@pytest.fixture
def intent(storage: Storage) -> SubmissionRecord:
    """Of unknown outcome."""
    intent = an_intent()
    with storage.database.begin():
        storage.submissions.intend([intent])
        storage.submissions.settle(intent.id, SubmissionState.UNKNOWN)
    return storage.submissions.get(intent.id)


def a_submitter(io: IOLoop, recorder: Recorder, storage: Storage, client: Mock) -> Submitter:
    settings = Settings(_env_file=None, sora_settle=0, sora_unknown_submission="resubmit")  # type: ignore[call-arg]
    return Submitter(io, client, storage, recorder, settings, provider=PROVIDER, owner_id="us", lease=LeaseMargin())


def test_an_answer_that_comes_while_the_listing_fails_is_not_given_up(
    io: IOLoop, recorder: Recorder, storage: Storage, intent: SubmissionRecord
) -> None:
    """Where nothing is paid, an unknown one is submitted anew; but this one is known by then."""

    async def bind_and_fail(_after: str | None) -> Any:
        await io.outcome(recorder.write(lambda: storage.submissions.bind(intent.id, "video_1")))
        raise SoraError(Failure(ErrorCode.NOT_FOUND, "no such route"), status=404)

    submitter = a_submitter(io, recorder, storage, Mock(list_page=bind_and_fail, clock=Mock(offset=0.0)))
    outcome = io.submit(submitter.resolve(intent, VideoSpec("lake 1", None, None, None), Mock())).result(10)
    assert outcome == Bound("video_1")
    assert storage.submissions.get(intent.id).state is SubmissionState.BOUND


def test_a_suspension_before_the_look_does_not_hide_what_was_made(
    io: IOLoop, recorder: Recorder, storage: Storage, intent: SubmissionRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run of the chaos paid twice: the window began late by as long as the database's time took to come."""
    awake = 1000.0
    monkeypatch.setattr("actors.sora.submission.awake_or_not", lambda: awake)
    offset = storage.database.now() - awake  # the server's clock and the database's are one
    made_any = storage.submissions.made_any

    def suspended(provider: str) -> bool:
        nonlocal awake
        awake += 60.0
        return made_any(provider)

    monkeypatch.setattr(storage.submissions, "made_any", suspended)
    submitter = a_submitter(io, recorder, storage, Mock(clock=Mock(offset=offset)))
    window_start, _ = io.submit(submitter._before_the_look(intent)).result(10)
    assert window_start <= intent.intended_at
