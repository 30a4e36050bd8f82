"""Which listed videos may be ours: the pure part of resolving a POST whose outcome is unknown.

A field that a listed video doesn't tell is a wildcard, never a mismatch; and nobody may get somebody else's video.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise

from actors.sora.client import VideoSpec
from actors.sora.wire import RemoteVideo

_SHORTEST_CUT = 32


@dataclass(frozen=True, slots=True)
class Listing:
    """What the server listed, from the newest back to before the window."""

    videos: tuple[RemoteVideo, ...]
    complete: bool
    """It reached an entry older than the window, or a truthful end."""
    window_start: float
    """In the server's time."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a listing proves."""

    adopted: tuple[str, ...]
    """Remote ids for the open intents, in their order of creation; fewer than intents, or as many."""
    absent: bool
    """The intents that got none made nothing."""


NOTHING_PROVED = Verdict((), absent=False)


def judge(listing: Listing, spec: VideoSpec, *, open_intents: int, held: Collection[str], made_any: bool) -> Verdict:
    """Match what is listed to the open intents of one request.

    Args:
        listing: the server's.
        spec: the request that all the intents have sent.
        open_intents: how many there are, over the whole database, none of them in flight any more.
        held: the listed ids that a submission holds.
        made_any: whether we had ever made a video there when the listing was asked for.
    """
    unheld = [video for video in listing.videos if video.id not in held and _in_window(video, listing.window_start)]
    # Servers rename models and round sizes and lengths: a video of our prompt that differs there may yet be ours.
    disguised = any(contradicts(video, spec) and _may_say(video.prompt, spec.prompt) for video in unheld)
    candidates = [video for video in unheld if not contradicts(video, spec)]
    if any(video.id is None or video.prompt != spec.prompt for video in candidates):
        return NOTHING_PROVED
    # Pages shift while they are read: a video may be listed twice.
    ids = dict.fromkeys(video.id for video in sorted(candidates, key=lambda video: video.created_at or 0.0) if video.id)
    if len(ids) > open_intents:
        return NOTHING_PROVED
    return Verdict(tuple(ids), absent=not disguised and _proves_absence(listing, held, made_any=made_any))


def _may_say(told: str | None, prompt: str) -> bool:
    """Whether this may be how a server tells the prompt: not at all, with other white space, or cut off."""
    if told is None:
        return True
    words, whole = (" ".join(text.split()).casefold() for text in (told, prompt))
    cut = words.rstrip(".\u2026 ")
    return words == whole or (len(cut) >= _SHORTEST_CUT and whole.startswith(cut))


def contradicts(video: RemoteVideo, spec: VideoSpec) -> bool:
    """Whether a listed video carries a field that this request can't have led to."""
    seconds = None if spec.seconds is None else f"{spec.seconds:g}"
    pairs = (
        (video.prompt, spec.prompt),
        (video.model, spec.model),
        (video.seconds, seconds),
        (video.size, spec.size),
    )
    return any(told is not None and asked is not None and told != asked for told, asked in pairs)


def in_falling_order(videos: Sequence[RemoteVideo]) -> bool:
    """Whether a page is really sorted newest first: only then does an old entry end the search."""
    times = [video.created_at for video in videos if video.created_at is not None]
    return all(first >= second for first, second in pairwise(times))


def _in_window(video: RemoteVideo, start: float) -> bool:
    return video.created_at is None or video.created_at >= start


def _proves_absence(listing: Listing, held: Collection[str], *, made_any: bool) -> bool:
    if not listing.complete:
        return False
    # A server that lost its memory, or another one behind the same address, lists none of ours: it proves nothing.
    return bool(held) or not (made_any or listing.videos)
