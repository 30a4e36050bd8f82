"""Which listed videos are ours, and whether a listing proves that nothing was made: the pure part of resolving.

A field that a listed video lacks is a wildcard, never a mismatch; and nobody may get somebody else's video.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from operator import itemgetter
from typing import Any

from actors.sora.requests import VideoSpec
from actors.sora.wire import RemoteVideo

BEFORE = 600.0
"""Seconds before an intent from which no video of its prompt may be listed to prove absence: clocks differ."""
ANSWERED_WITHIN = 5.0
"""Seconds. A server that holds listings back may hold POSTs back too."""
_SHORTEST_CUT = 32


@dataclass(frozen=True, slots=True)
class Listing:
    """The server's listing, newest first. Times are by the database's clock, as far as the server's is known."""

    videos: tuple[RemoteVideo, ...]
    since: float
    """How far back it was meant to be read."""
    complete: bool
    """It reached an older entry, or its stated end."""
    began_at: float
    took: float
    """Seconds."""
    ahead: float = 0.0
    """Seconds by which the server's clock is ahead."""
    skew: float = 0.0
    """Seconds by which `ahead` may be wrong."""

    def made_at(self, video: RemoteVideo) -> float | None:
        """When a video was made."""
        return None if video.created_at is None else video.created_at - self.ahead


@dataclass(frozen=True, slots=True)
class OpenIntent:
    """An intent whose outcome is unknown."""

    id: str
    spec: VideoSpec
    intended_at: float
    sent_until: float
    """When its POST has normally arrived, if it ever does."""
    in_flight: bool
    """Its own answer may still come."""


@dataclass(frozen=True, slots=True)
class Held:
    """A listed id that a submission holds."""

    ours: bool
    """It was made with the key that the listing was read with."""
    made_until: float
    """When its video had been made at the latest: the id was told, or the POST had arrived."""
    prompt: str | None
    """The requested prompt; None: no longer known."""
    ended: bool
    """Its job has ended: if the server reuses the id, the listed video may be another one."""
    doubtful: bool = False
    """Adopted by a submission whose POST may still be accepted: the video may be a twin's."""


_Candidates = dict[OpenIntent, set[int]]
"""Open intents, oldest first, each with the numbers of the listed videos that may be its own."""


def pair(listing: Listing, held: Collection[str], intents: Sequence[OpenIntent]) -> dict[str, str]:
    """The video that each open intent of one key has made, by the intent's id, as far as the listing shows.

    Intents and videos that it can't tell apart (twins) are paired oldest first; if there are more videos than intents,
    some belong to others, and none is adopted. Twins in flight are waited for: their answers will tell.
    """
    listed: dict[str | None, list[int]] = defaultdict(list)
    seen: set[str | None] = set(held)
    for number, video in enumerate(listing.videos):
        if video.id is None or video.id not in seen:  # pages shift while they are read: one may be listed twice
            listed[video.prompt].append(number)
            seen.add(video.id)
    groups: dict[str, _Candidates] = defaultdict(dict)
    for intent in sorted(intents, key=lambda each: each.intended_at):
        numbers = listed.get(intent.spec.prompt, []) + listed.get(None, [])
        found = {number for number in numbers if _may_be_of(listing, listing.videos[number], intent)}
        if found:
            groups[intent.spec.prompt][intent] = found
    paired: dict[str, str] = {}
    for candidates in groups.values():
        while candidates:
            twins = _twins(candidates)
            paired |= _paired(listing, twins)
            for twin in twins:
                del candidates[twin]
    return paired


def _may_be_of(listing: Listing, video: RemoteVideo, intent: OpenIntent) -> bool:
    made_at = listing.made_at(video)
    return not contradicts(video, intent.spec) and (made_at is None or made_at >= intent.intended_at - listing.skew)


def _twins(candidates: _Candidates) -> _Candidates:
    """The first intent, and all that share a video with it, directly or through others."""
    first = next(iter(candidates))
    twins, videos = {first: candidates[first]}, set(candidates[first])
    grown = True
    while grown:
        more = {
            intent: found
            for intent, found in candidates.items()
            if intent not in twins and not videos.isdisjoint(found)
        }
        grown = bool(more)
        twins |= more
        videos.update(*more.values())
    return {intent: found for intent, found in candidates.items() if intent in twins}


def _paired(listing: Listing, twins: _Candidates) -> dict[str, str]:
    numbers = set().union(*twins.values())
    videos = [(listing.videos[number].created_at or 0.0, number, listing.videos[number]) for number in numbers]
    if any(video.id is None or video.prompt is None for *_, video in videos) or any(twin.in_flight for twin in twins):
        return {}
    paired: dict[str, str] = {}
    for _, number, video in sorted(videos, key=itemgetter(0, 1)):
        free = [twin for twin, found in twins.items() if twin.id not in paired and number in found]
        if not free:
            return {}
        made_at = listing.made_at(video)
        # An old unresolved intent must not take the video of a later one.
        timely = [twin for twin in free if made_at is None or made_at <= twin.sent_until + listing.skew]
        paired[(timely or free)[0].id] = str(video.id)
    return paired


def absence_disproved(listing: Listing, intent: OpenIntent, held: Mapping[str, Held], *, made_any: bool) -> str | None:
    """Why a listing read after the intent's POST must have arrived does not prove absence; None: it does.

    Args:
        listing: the server's, declared whole by its operator.
        intent: the intent.
        held: the listed ids that submissions hold.
        made_any: whether we ever made a video there.
    """
    if not listing.complete or listing.since > intent.intended_at - BEFORE:
        return "the server's listing does not reach back far enough"
    if listing.took > ANSWERED_WITHIN:
        return f"the server took {listing.took:.0f} s to list its videos, so it may hold requests back"
    if not any(each.ours for each in held.values()) and (made_any or listing.videos):
        return "the server's listing shows no video known to be ours"
    since = intent.intended_at - BEFORE
    for video in listing.videos:
        made_at = listing.made_at(video)
        if (made_at is not None and made_at < since) or not _may_say(video.prompt, intent.spec.prompt):
            continue
        holder = held.get(video.id or "")
        if holder is None or holder.doubtful:
            return "the server's listing shows a video that may be this one"
        # Otherwise it is known to be another one only if its answer came after the intent was recorded.
        again = made_at is None or (
            made_at >= intent.intended_at - listing.skew and holder.made_until < intent.intended_at
        )
        if holder.ended and again:
            return f"the server may have reused the id {video.id}"
    return None


def reused(listing: Listing, held: Mapping[str, Held]) -> str | None:
    """A listed id that a submission holds although the listed video is newer or has another prompt."""
    for video in listing.videos:
        holder, made_at = held.get(video.id or ""), listing.made_at(video)
        if holder is None:
            continue
        later = made_at is not None and made_at > holder.made_until + listing.skew
        if later or (holder.prompt is not None and not _may_say(video.prompt, holder.prompt)):
            return video.id
    return None


def _may_say(told: str | None, prompt: str) -> bool:
    """Whether this may be the prompt as the server shows it: omitted, with other white space, or truncated."""
    if told is None:
        return True
    words, whole = (" ".join(text.split()).casefold() for text in (told, prompt))
    cut = words.rstrip(".\u2026 ")
    return words == whole or (len(cut) >= _SHORTEST_CUT and whole.startswith(cut))


def contradicts(video: RemoteVideo, spec: VideoSpec) -> bool:
    """Whether a field of a listed video differs from this request."""
    seconds = None if spec.seconds is None else f"{spec.seconds:g}"
    pairs: tuple[tuple[Any, Any], ...] = (
        (video.prompt, spec.prompt),
        (video.model, spec.model),
        (video.seconds, seconds),
        (video.size, spec.size),
        (video.seed, spec.seed),
    )
    return any(told is not None and asked is not None and told != asked for told, asked in pairs)


def in_falling_order(videos: Iterable[RemoteVideo]) -> bool:
    """Whether a page is really sorted newest first: only then may an old entry end the search."""
    times = [video.created_at for video in videos if video.created_at is not None]
    return all(first >= second for first, second in pairwise(times))
