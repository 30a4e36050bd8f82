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


def test_an_answer_that_comes_while_the_listing_fails_is_not_given_up(
    io: IOLoop, recorder: Recorder, storage: Storage
) -> None:
    """Where nothing is paid, an unknown one is submitted anew; but this one is known by then."""
    intent = an_intent()
    with storage.database.begin():
        storage.submissions.intend([intent])
        storage.submissions.settle(intent.id, SubmissionState.UNKNOWN)

    async def bind_and_fail(_after: str | None) -> Any:
        await io.outcome(recorder.write(lambda: storage.submissions.bind(intent.id, "video_1")))
        raise SoraError(Failure(ErrorCode.NOT_FOUND, "no such route"), status=404)

    settings = Settings(_env_file=None, sora_settle=0, sora_unknown_submission="resubmit")  # type: ignore[call-arg]
    client = Mock(list_page=bind_and_fail, clock=Mock(offset=0.0))
    submitter = Submitter(
        io, client, storage, recorder, settings, provider=PROVIDER, owner_id="us", lease=LeaseMargin()
    )
    outcome = io.submit(submitter.resolve(intent, VideoSpec("lake 1", None, None, None), Mock())).result(10)
    assert outcome == Bound("video_1")
    assert storage.submissions.get(intent.id).state is SubmissionState.BOUND
