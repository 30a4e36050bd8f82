"""How videos are watched: with which requests, and how soon each is noticed. In a time of its own."""

import asyncio
import base64
import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from actors.errors import ErrorCode, Failure, SoraError
from actors.sora import listing, watching
from actors.sora.reader import PAGE, Page
from actors.sora.watching import Watcher
from actors.sora.wire import Phase, RemoteVideo, inner_id, parse_video
from tests.model.loop import Clock, ModelLoop

INTERVAL = 2.0


@dataclass
class Server:
    """Has videos that are ready at their time, and counts what it is asked."""

    clock: Clock
    ready_at: dict[str, float] = field(default_factory=dict)
    bad: set[str] = field(default_factory=set)
    progress: int | None = None
    requests: Counter[str] = field(default_factory=Counter)
    looks: list[float] = field(default_factory=list)
    listing: Callable[[list[dict[str, Any]]], list[dict[str, Any]]] = list
    listing_fails: SoraError | None = None
    looks_fail: SoraError | None = None
    has_more: bool = True
    hint: float | None = None
    takes: float = 0.01

    def document(self, remote_id: str) -> dict[str, Any]:
        ready = self.clock.now >= self.ready_at[remote_id]
        ended = "failed" if remote_id in self.bad else "completed"
        return {"id": remote_id, "status": ended if ready else "in_progress", "progress": self.progress}

    async def retrieve(self, remote_id: str, *, anew: bool = False) -> tuple[RemoteVideo, float | None]:
        self.requests["look"] += 1
        self.looks.append(self.clock.now)
        await asyncio.sleep(self.takes / 2)
        if self.looks_fail:
            raise self.looks_fail
        video = parse_video(self.document(remote_id))
        await asyncio.sleep(self.takes / 2)
        assert video is not None
        return video, self.hint

    async def listed(self, after: str | None, knows: Callable[[str], bool]) -> Page:
        self.requests["page"] += 1
        await asyncio.sleep(self.takes / 2)
        if self.listing_fails:
            raise self.listing_fails
        documents = self.listing([self.document(remote_id) for remote_id in reversed(self.ready_at)])
        start = next((at for at, each in enumerate(documents, 1) if each["id"] == after), 0)
        page = documents[start : start + PAGE]
        more = start + PAGE < len(documents) if self.has_more else None
        await asyncio.sleep(self.takes / 2)
        videos = tuple(video for each in page if knows(each["id"]) and (video := parse_video(each)) is not None)
        return Page(videos, more, page[-1]["id"] if page else None)


class World:
    """A watcher, and whoever watches with it."""

    def __init__(self, clock: Clock) -> None:
        self.clock, self.loop, self.server = clock, ModelLoop(clock), Server(clock)
        self.watcher = Watcher(self.server, INTERVAL)  # type: ignore[arg-type]
        self.noticed: dict[str, float] = {}
        """When each was known to be ready."""
        self.ended_badly: list[str] = []
        self.progressed: list[int | None] = []
        self.errors = 0
        self.name: Callable[[int], str] = "video_{}".format
        """The id that a create is answered with."""

    def start(self, seconds: float, count: int = 1, *, attached: bool = False) -> None:
        """Have videos accepted, that take so long."""
        for _ in range(count):
            remote_id = self.name(len(self.server.ready_at))
            self.server.ready_at[remote_id] = self.clock.now + seconds
            self.loop.create_task(self._watch(remote_id, None if attached else self.clock.now))

    async def _watch(self, remote_id: str, accepted_at: float | None) -> None:
        with self.watcher.watch(remote_id, "a kind", accepted_at) as watch:
            while True:
                try:
                    video = await watch.news()
                except SoraError:
                    self.errors += 1
                    watch.postpone(1.0)
                    continue
                if video.phase is Phase.READY:
                    self.noticed[remote_id] = self.clock.now
                    return
                if video.phase is Phase.ENDED_BADLY:
                    self.ended_badly.append(remote_id)
                    return
                self.progressed.append(video.progress)

    def pass_time(self, seconds: float) -> None:
        until = self.clock.now + seconds
        while True:
            while self.loop.step():
                pass
            assert not self.loop.errors, self.loop.errors
            timer = self.loop.next_timer()
            if timer is None or timer > until:
                break
            self.clock.now = max(self.clock.now, timer)
        self.clock.now = until

    def delays(self) -> list[float]:
        """How long after it was ready each was noticed."""
        return [self.noticed[remote_id] - at for remote_id, at in self.server.ready_at.items()]


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    clock = Clock()
    clock.now = 1000.0
    for module in (watching, listing):
        monkeypatch.setattr(module, "time", clock)
    world = World(clock)
    yield world
    world.loop.forget()


def test_few_videos_are_looked_at_themselves(world: World) -> None:
    world.start(9.0, 3)
    world.pass_time(12.0)
    assert world.server.requests == {"look": 15}
    assert max(world.delays()) < INTERVAL


def test_one_page_takes_the_place_of_many_looks(world: World) -> None:
    world.start(9.0, 20)
    world.pass_time(12.0)
    assert max(world.delays()) < INTERVAL
    assert world.server.requests["look"] == 0
    assert world.server.requests["page"] <= 6


def wrapped(video: str, more: str = "") -> str:
    """An id of a LiteLLM proxy's."""
    text = f"litellm:custom_llm_provider:hosted_vllm;model_id:films;video_id:{video}{more}"
    return f"video_{base64.b64encode(text.encode()).decode()}"


def listed_otherwise(documents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """As that proxy lists its videos: the ids lack what it had added."""
    return [{**each, "id": wrapped(inner_id(each["id"]))} for each in documents]


def test_a_proxy_s_listing_is_read_although_it_writes_the_ids_otherwise(world: World) -> None:
    world.name = lambda number: wrapped(f"video_gen_{number}", ";deployment_id:0af3")
    world.server.listing = listed_otherwise
    world.start(9.0, 20)
    world.pass_time(12.0)
    assert max(world.delays()) < INTERVAL
    assert world.server.requests["look"] == 0
    assert not world.watcher.listing._wrapped


def test_of_two_videos_that_a_proxy_lists_alike_each_is_looked_at_itself(world: World) -> None:
    """Two servers behind it that count from 1."""
    world.name = lambda number: wrapped(f"{number // 2}", f";deployment_id:{number % 2}")
    world.server.listing = listed_otherwise
    world.start(9.0, 19)
    world.start(90.0)  # the twin of the 19th
    world.pass_time(60.0)
    assert len(world.noticed) == 19
    world.pass_time(60.0)
    assert len(world.noticed) == 20


@pytest.mark.parametrize("count", [50, 100, 1000, 3000])
def test_many_videos_cost_half_a_request_each_and_are_noticed_within_the_interval(world: World, count: int) -> None:
    world.start(30.0, count)
    world.pass_time(33.0)
    assert max(world.delays()) < INTERVAL + math.ceil(count / PAGE) * world.server.takes
    assert world.server.requests.total() <= (2.0 if count < 1000 else 0.5) * count


def test_a_full_page_is_asked_for_five_times_an_interval(world: World) -> None:
    world.start(9.0, 100)
    world.pass_time(12.0)
    assert max(world.delays()) <= 2 * INTERVAL / 5
    assert world.server.requests.total() <= 5 * 10 / INTERVAL


@pytest.mark.parametrize("seconds", [0.0, 1.0, 9.0])
def test_the_time_that_such_videos_took_is_learned(world: World, seconds: float) -> None:
    for _ in range(60):
        world.start(seconds)
        world.pass_time(max(seconds, 1.0) / 3)
    world.pass_time(12.0)
    world.server.requests.clear()
    before = len(world.server.ready_at)
    for _ in range(40):
        world.start(seconds)
        world.pass_time(max(seconds, 1.0) / 3)
    world.pass_time(12.0)
    delays = sorted(world.delays()[before:])
    assert delays[30] <= 0.1 * seconds + INTERVAL / watching._GRAINS + 2 * world.server.takes


def test_many_whose_time_is_up_at_once_are_looked_at_by_the_listing(world: World) -> None:
    world.start(30.0, 500)
    world.pass_time(40.0)
    world.server.requests.clear()
    world.start(30.0, 500)
    world.pass_time(40.0)
    assert max(world.delays()[500:]) < INTERVAL
    assert world.server.requests["look"] <= 20


@pytest.mark.parametrize(
    "error",
    [SoraError(Failure(ErrorCode.NOT_FOUND, "no such route"), status=404),
     SoraError(Failure(ErrorCode.SERVER_ERROR, "Internal Server Error"), status=500)],
    ids=str,
)  # fmt: skip
def test_without_a_listing_each_is_looked_at_and_the_looks_are_spread_evenly(world: World, error: SoraError) -> None:
    world.server.listing_fails = error
    world.start(21.0, 100)
    world.pass_time(25.0)
    assert world.server.requests["page"] == 1
    assert max(world.delays()) < INTERVAL + 2 * world.server.takes
    tenths = Counter(int(10 * at / INTERVAL) for at in world.server.looks if 1006 < at < 1020)
    assert max(tenths.values()) <= 15


@pytest.mark.parametrize(
    ("listing", "has_more"),
    [(lambda documents: [{**each, "id": f"x{each['id']}"} for each in documents], True),  # LiteLLM's ids
     (lambda documents: documents[:10], True),
     (lambda _: [], True),
     (list, False)],  # no word of another page
    ids=["other ids", "few", "empty", "one page"],
)  # fmt: skip
def test_a_listing_that_does_not_show_them_is_not_asked_again_soon(world: World, listing: Any, has_more: bool) -> None:
    world.server.listing, world.server.has_more = listing, has_more
    world.start(21.0, 300)
    world.pass_time(25.0)
    assert max(world.delays()) < INTERVAL + 2 * world.server.takes
    assert world.server.requests["page"] <= 3


def test_a_listing_that_lags_behind_is_refuted_by_a_look(world: World) -> None:
    world.server.listing = lambda documents: [{**each, "status": "in_progress"} for each in documents]
    world.start(21.0, 20)
    world.pass_time(21.0 + 2 * watching._CHECK * INTERVAL)
    assert len(world.noticed) == 20  # the first few by the look that each gets whatever the listing says
    asked = world.server.requests["page"]
    world.start(9.0, 20)
    world.pass_time(12.0)
    assert world.server.requests["page"] == asked
    assert max(world.delays()[20:]) < INTERVAL


def test_a_listing_that_shows_several_that_are_ready_as_they_were_is_refuted_once(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.start(1.0, 3)  # few: each is looked at itself
    world.pass_time(5.0)
    world.server.listing = lambda documents: [{**each, "status": "in_progress"} for each in documents]
    caplog.set_level("INFO")
    world.start(9.0, 20)
    world.pass_time(12.0)
    assert max(world.delays()) < INTERVAL + 2 * world.server.takes
    assert world.server.requests["page"] == 1
    assert [record.levelname for record in caplog.records] == ["INFO"]


def test_new_videos_that_the_listing_does_not_show_yet_are_looked_at_themselves(world: World) -> None:
    for _ in range(10):
        world.start(40.0, 4)
        world.pass_time(1.0)
    hidden = list(world.server.ready_at)[-10:]
    world.server.listing = lambda documents: [each for each in documents if each["id"] not in hidden]
    world.pass_time(50.0)
    assert max(world.delays()) < INTERVAL + 2 * world.server.takes
    assert world.server.requests["look"] <= 10 * 26


def test_a_listing_is_asked_again_when_its_time_of_distrust_is_over(world: World) -> None:
    world.server.listing_fails = SoraError(Failure(ErrorCode.SERVER_ERROR, "restarting"), status=503)
    world.start(400.0, 50)
    world.pass_time(10.0)
    world.server.listing_fails = None
    world.pass_time(listing._DISTRUST)
    world.server.requests.clear()
    world.pass_time(20.0)
    assert world.server.requests["look"] <= 10
    assert world.server.requests["page"] >= 10


def test_a_listing_that_is_rate_limited_is_believed(world: World) -> None:
    world.start(60.0, 50)
    world.pass_time(3.0)
    world.server.listing_fails = SoraError(Failure(ErrorCode.RATE_LIMITED, "slow down"), status=429)
    world.pass_time(1.0)
    world.server.listing_fails = None
    world.pass_time(4.0)
    world.server.requests.clear()
    world.pass_time(10.0)
    assert world.server.requests["look"] == 0
    assert world.server.requests["page"] >= 5


def test_an_error_of_ours_in_reading_the_listing_is_told_and_leaves_nobody_waiting(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.server.listing = lambda documents: 1 / 0  # type: ignore[arg-type, return-value]
    world.start(9.0, 50)
    world.pass_time(13.0)
    assert max(world.delays()) < INTERVAL + 2 * world.server.takes
    assert "ZeroDivisionError" in caplog.text


def test_why_a_video_failed_is_asked_of_itself(world: World) -> None:
    world.start(9.0, 20)
    world.server.bad = {"video_3"}
    world.pass_time(12.0)
    assert world.ended_badly == ["video_3"]
    assert world.server.requests["look"] == 1


def test_progress_is_told_once(world: World) -> None:
    world.start(20.0, 50)
    world.pass_time(5.0)
    world.server.progress = 30
    world.pass_time(10.0)
    assert world.progressed == [30] * 50


def test_the_servers_hint_is_obeyed(world: World) -> None:
    world.server.hint = 10.0
    world.start(25.0, 3)
    world.pass_time(40.0)
    assert world.server.requests == {"look": 12}


def test_a_hint_of_the_last_look_keeps_nothing(world: World) -> None:
    world.server.hint = 86_400.0
    world.start(-5.0, 3, attached=True)
    world.pass_time(2 * 2 * watching._CHECK * INTERVAL)
    assert len(world.noticed) == 3
    assert not world.watcher._agenda


def test_attached_ones_are_looked_at_at_once(world: World) -> None:
    world.start(-5.0, 200, attached=True)
    world.pass_time(1.0)
    assert len(world.noticed) == 200
    assert world.server.requests["page"] == 2


def test_a_look_that_fails_is_made_again_when_its_watcher_says_so(world: World) -> None:
    world.server.looks_fail = SoraError(Failure(ErrorCode.SERVER_ERROR, "oops"), status=500)
    world.start(9.0, 1)
    world.pass_time(6.5)
    assert world.errors == 5
    world.server.looks_fail = None
    world.pass_time(10.0)
    assert world.progressed == [None]  # that there is an answer again is news
    assert len(world.noticed) == 1


def test_what_is_watched_no_longer_is_forgotten(world: World) -> None:
    world.start(3.0, 1000)
    world.pass_time(200.0)
    assert not world.watcher._watches
    assert not world.watcher._agenda
    assert world.loop.next_timer() is None
