"""One page of the list of videos: the query checked, the page worded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from actors.simulator.jobs import state_of
from actors.simulator.refusals import invalid

if TYPE_CHECKING:
    from collections.abc import Mapping

    from actors.simulator.ledger import Ledger
    from actors.simulator.profiles import Profile

DEFAULT_LIMIT = 20


def list_videos(ledger: Ledger, profile: Profile, query: Mapping[str, str], now: float) -> dict[str, Any]:
    """Give the page that a query asks for.

    Raises:
        Refusal: the query makes no sense.
    """
    order = query.get("order", "desc")
    if order not in ("asc", "desc"):
        raise invalid("order", f"Invalid value: '{order}'. Supported values are: 'asc' and 'desc'.")
    limit = _limit(query.get("limit"), profile)
    try:
        jobs, more = ledger.page(after=query.get("after"), limit=limit, newest_first=order == "desc")
    except KeyError:
        if profile.unknown_after_is_refused:
            raise invalid("after", f"No video with the id '{query['after']}' was found.") from None
        jobs, more = [], False
    return {
        "object": "list",
        "data": [profile.video(job, state_of(job, now)) for job in jobs],
        "first_id": jobs[0].id if jobs else None,
        "last_id": jobs[-1].id if jobs else None,
        "has_more": more,
    }


def _limit(text: str | None, profile: Profile) -> int:
    if text is None:
        return DEFAULT_LIMIT
    limits = profile.list_limits
    if not (text.isascii() and text.isdigit() and len(text) <= 4 and int(text) in limits):
        raise invalid("limit", f"Invalid value: '{text}'. Expected a number from {limits[0]} to {limits[-1]}.")
    return int(text)
