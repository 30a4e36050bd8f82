"""When a video counts as lost."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from actors.errors import ErrorCode, Failure, SoraError
from actors.sora.reader import Page
from actors.sora.wire import RemoteVideo, parse_video
from actors.video import setbacks
from tests.model.loop import Clock


class Forgetful:
    """A server that shows a video in its listing, or fails to, or has none."""

    def __init__(self) -> None:
        self.shown: tuple[RemoteVideo, ...] = ()
        self.fails: SoraError | None = None

    async def listed(self, _after: str | None, knows: Callable[[str], bool]) -> Page:
        if self.fails is not None:
            raise self.fails
        return Page(tuple(video for video in self.shown if knows(str(video.id))), has_more=False)


@pytest.fixture
def absence(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Callable[[float], bool]]:
    """Make an absence; calling it notes a look that said 404, so many seconds after the first."""
    clock = Clock()
    monkeypatch.setattr(setbacks, "time", clock)

    def make(server: Forgetful, *, provable: bool = True) -> Any:
        absence, first = setbacks.Absence(server, "video_1", provable=provable), clock.now  # type: ignore[arg-type]

        def misses(at: float) -> bool:
            clock.now = first + at
            return asyncio.run(absence.proved())

        misses.absence = absence  # type: ignore[attr-defined]
        return misses

    return make


def test_a_video_is_lost_after_twenty_looks_over_two_minutes(absence: Any) -> None:
    misses = absence(Forgetful())
    assert not any(misses(6.0 * look) for look in range(20))  # the twentieth comes after 114 s
    assert misses(120.0)


def test_many_looks_within_seconds_lose_no_video(absence: Any) -> None:
    misses = absence(Forgetful())
    assert not any(misses(0.1 * look) for look in range(500))


def test_few_looks_within_an_hour_lose_no_video(absence: Any) -> None:
    misses = absence(Forgetful())
    assert not any(misses(180.0 * look) for look in range(19))


def test_whatever_else_a_look_says_begins_it_anew(absence: Any) -> None:
    misses = absence(Forgetful())
    assert not any(misses(6.0 * look) for look in range(20))
    misses.absence.refuted()
    assert not any(misses(120.0 + 6.0 * look) for look in range(20))


def test_a_video_that_the_listing_shows_is_not_lost(absence: Any) -> None:
    server = Forgetful()
    shown = parse_video({"id": "video_1", "status": "in_progress"})
    assert shown is not None
    server.shown = (shown,)
    misses = absence(server)
    assert not any(misses(6.0 * look) for look in range(40))
    server.shown = ()
    assert any(misses(240.0 + 6.0 * look) for look in range(21))


@pytest.mark.parametrize(("status", "lost_at"), [(405, 120.0), (400, 120.0), (503, 240.0)])
def test_a_listing_that_can_not_be_read_is_none_in_the_end(status: int, lost_at: float, absence: Any) -> None:
    server = Forgetful()
    code = ErrorCode.SERVER_ERROR if status >= 500 else ErrorCode.NOT_FOUND
    server.fails = SoraError(Failure(code, "no listing"), status=status)
    misses = absence(server)
    assert next(at for at in range(0, 1000, 6) if misses(float(at))) == lost_at


def test_what_another_key_made_is_never_lost(absence: Any) -> None:
    misses = absence(Forgetful(), provable=False)
    assert not any(misses(6.0 * look) for look in range(500))
