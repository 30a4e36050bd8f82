"""What a Resolver does where the right moment can't be had from a real server."""

import asyncio
import base64
from collections.abc import Iterator
from typing import Any
from unittest.mock import Mock

import pytest

from actors.errors import ErrorCode, Failure, SoraError
from actors.loop import IOLoop
from actors.settings import Settings
from actors.sora.matching import BEFORE
from actors.sora.outcomes import Bound, bind_told
from actors.sora.reader import Page
from actors.sora.resolving import Resolver
from actors.sora.wire import parse_video
from storage.database import Database
from storage.owners import this_process
from storage.recorder import Recorder
from storage.records import SubmissionRecord
from storage.states import SubmissionState
from storage.storage import Storage
from storage.submissions import Bind
from tests.builders import PROVIDER, a_batch, an_intent, put


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
    put(storage, a_batch())
    with storage.database.begin():
        storage.submissions.intend([intent])
        storage.submissions.settle(intent.id, SubmissionState.UNKNOWN)
    return storage.submissions.get(intent.id)


def a_resolver(io: IOLoop, recorder: Recorder, storage: Storage, client: Mock) -> Resolver:
    settings = Settings(_env_file=None, sora_settle=0, sora_unknown_submission="resubmit")  # type: ignore[call-arg]
    return Resolver(
        io, client, storage, recorder, settings, provider=PROVIDER, is_sending=lambda _: False, resolved=Mock()
    )


def test_an_answer_that_comes_while_the_listing_fails_is_not_given_up(
    io: IOLoop, recorder: Recorder, storage: Storage, intent: SubmissionRecord
) -> None:
    """Where nothing is paid, an unknown one is submitted anew; but this one is known by then."""

    async def bind_and_fail(_after: str | None) -> Any:
        await io.outcome(recorder.write(lambda: storage.submissions.bind(intent.id, "video_1")))
        raise SoraError(Failure(ErrorCode.NOT_FOUND, "no such route"), status=404)

    resolver = a_resolver(io, recorder, storage, Mock(list_page=bind_and_fail, clock=Mock(offset=0.0)))
    outcome = io.submit(resolver.resolve(intent, Mock())).result(10)
    assert outcome == Bound("video_1")
    assert storage.submissions.get(intent.id).state is SubmissionState.BOUND


def test_a_suspension_before_the_look_does_not_hide_what_was_made(
    io: IOLoop, recorder: Recorder, storage: Storage, intent: SubmissionRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run of the chaos paid twice: the window began late by as long as the database's time took to come."""
    awake = 1000.0
    monkeypatch.setattr("actors.sora.resolving.boottime", lambda: awake)
    now = storage.database.now
    offset = now() - awake  # the server's clock and the database's are one

    def suspended() -> float:
        nonlocal awake
        awake += 60.0
        return now()

    monkeypatch.setattr(storage.database, "now", suspended)

    async def page(_after: str | None) -> Page:
        return Page((), has_more=False)

    resolver = a_resolver(io, recorder, storage, Mock(list_page=page, clock=Mock(offset=offset)))
    listing = io.submit(resolver._listing(resolver._window({intent.id: intent}))).result(10)
    assert listing.ahead < 1.0
    assert listing.since <= intent.intended_at - BEFORE


class Slow:
    """A listing that begins when it is asked for, and ends when it is let go."""

    def __init__(self) -> None:
        self.begun = 0
        self.first, self.going = asyncio.Event(), asyncio.Semaphore(0)

    async def page(self, _after: str | None) -> Page:
        self.begun += 1
        self.first.set()
        await self.going.acquire()
        return Page((), has_more=False)


def test_one_reading_serves_all_that_waited_when_it_began(
    io: IOLoop, recorder: Recorder, storage: Storage, intent: SubmissionRecord
) -> None:
    slow = Slow()
    resolver = a_resolver(io, recorder, storage, Mock(list_page=slow.page, clock=Mock(offset=0.0)))

    async def twenty() -> int:
        first = asyncio.create_task(resolver._reading(intent))
        await slow.first.wait()
        late = [asyncio.create_task(resolver._reading(intent)) for _ in range(20)]
        await asyncio.sleep(0)
        slow.going.release()
        await first
        slow.going.release()
        await asyncio.gather(*late)
        return slow.begun

    assert io.submit(twenty()).result(10) == 2


def test_what_was_held_back_is_waited_for_once_the_server_answers_again(
    io: IOLoop, recorder: Recorder, storage: Storage, intent: SubmissionRecord
) -> None:
    answers: list[Any] = [
        SoraError(Failure(ErrorCode.SERVER_ERROR, "warming up"), status=503),
        Page((), has_more=False),
    ]

    async def page(_after: str | None) -> Page:
        answer = answers.pop(0)
        if isinstance(answer, SoraError):
            raise answer
        return answer

    resolver = a_resolver(io, recorder, storage, Mock(list_page=page, clock=Mock(offset=0.0)))
    with pytest.raises(SoraError):
        io.submit(resolver._reading(intent)).result(10)
    before = storage.database.now()
    finding = io.submit(resolver._reading(intent)).result(10)[intent.id]
    assert (finding.outcome, finding.tried, finding.final) == (None, False, False)
    assert resolver._evidence.ready_at(intent) >= before


@pytest.mark.parametrize("ours", [True, False], ids=["on this host", "elsewhere"])
@pytest.mark.parametrize("lives", [True, False], ids=["lives", "is gone"])
def test_a_post_of_a_sender_that_lives_and_has_told_nothing_counts_as_timed_out(
    ours: bool, lives: bool, io: IOLoop, recorder: Recorder, storage: Storage
) -> None:
    """A suspended one keeps its connection open. Whether it lives, its process tells; elsewhere its lease does."""
    sender = this_process()
    if not ours:
        sender = sender._replace(host="another host")
    elif not lives:
        sender = sender._replace(started="1")
    put(storage, a_batch())
    with storage.database.begin():
        # On this host a lease that lasts or is over says nothing.
        storage.owners.renew(sender, 60.0 if lives is not ours else -60.0)
        storage.submissions.intend([an_intent(sender=sender.id)])
        storage.database.execute("UPDATE submissions SET intended_at=intended_at-1000")
    settings = Settings(_env_file=None, sora_settle=0)  # type: ignore[call-arg]
    resolver = Resolver(
        io, Mock(), storage, recorder, settings, provider=PROVIDER, is_sending=lambda _: None, resolved=Mock()
    )
    current, ready_in = io.submit(resolver._standing("intent-1")).result(10)
    assert (current.state, bool(current.timed_out), ready_in < 0) == (SubmissionState.UNKNOWN, lives, True)
    why = resolver._evidence.why_no_proof(current)
    assert (why is not None and "SORA_SUBMIT_TIMEOUT" in why) is lives


@pytest.mark.parametrize(("key", "words"), [("another", "it was sent with another key"), ("key", None)])
def test_no_listing_proves_anything_about_another_key_s_post(key: str, words: str | None) -> None:
    """Such a submission is not even looked for; this holds if it is all the same."""
    settings = Settings(_env_file=None)  # type: ignore[call-arg]
    resolver = Resolver(
        Mock(), Mock(), Mock(), Mock(), settings, provider=PROVIDER, is_sending=lambda _: None, resolved=Mock()
    )
    resolver._evidence._storage.servers.reuses_ids.return_value = False  # type: ignore[attr-defined]
    sent = an_intent(provider=f"{PROVIDER.partition('#')[0]}#{key}", timed_out=False, state=SubmissionState.UNKNOWN)
    why = resolver._evidence.why_no_proof(sent)
    assert (why and why.partition(",")[0]) == words


def wrapped(video: str, more: str = "") -> str:
    """An id of a LiteLLM proxy's."""
    text = f"litellm:custom_llm_provider:hosted_vllm;model_id:films;video_id:{video}{more}"
    return f"video_{base64.b64encode(text.encode()).decode()}"


TOLD, LISTED = wrapped("video_gen_1", ";deployment_id:0af3"), wrapped("video_gen_1")


@pytest.mark.parametrize(("told", "adopted"), [(TOLD, False), (wrapped("video_gen_2", ";deployment_id:0af3"), True)])
def test_a_video_that_a_twin_has_is_not_adopted_under_the_id_by_which_a_proxy_lists_it(
    io: IOLoop, recorder: Recorder, storage: Storage, intent: SubmissionRecord, told: str, adopted: bool
) -> None:
    twin = an_intent("intent-2", job_id="b-02")
    put(storage, a_batch("b", total=2))
    with storage.database.begin():
        storage.submissions.intend([twin])
        storage.submissions.bind(twin.id, told)
    listed = parse_video({"id": LISTED, "status": "queued", "prompt": storage.jobs.by_id(["b-01"])["b-01"].prompt})
    assert listed is not None

    async def page(_after: str | None) -> Page:
        return Page((listed,), has_more=False)

    resolver = a_resolver(io, recorder, storage, Mock(list_page=page, clock=Mock(offset=0.0)))
    io.submit(resolver._reading(intent)).result(10)
    assert storage.submissions.get(intent.id).remote_id == (LISTED if adopted else None)


def test_an_answer_that_comes_late_takes_its_video_back_from_who_adopted_it_as_listed(
    storage: Storage, intent: SubmissionRecord
) -> None:
    late = an_intent("intent-2", job_id="b-02")
    with storage.database.begin():
        storage.submissions.intend([late])
        storage.submissions.settle(late.id, SubmissionState.UNKNOWN)
        assert storage.submissions.bind(intent.id, LISTED, adopted=True) is Bind.BOUND
        assert bind_told(storage, late.id, TOLD) is Bind.BOUND
    first, second = (storage.submissions.get(each.id) for each in (intent, late))
    assert (first.state, first.remote_id, first.former_remote_id) == (SubmissionState.UNKNOWN, None, LISTED)
    assert (second.state, second.remote_id) == (SubmissionState.BOUND, TOLD)
