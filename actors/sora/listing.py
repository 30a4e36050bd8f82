"""Reads the server's listing page by page, for polling, resolving and the audit."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

from actors.sora.exchange import Page


async def pages(
    read: Callable[[str | None], Awaitable[Page]], most: int, *, guess: bool = False
) -> AsyncIterator[Page]:
    """The pages of a listing, newest first, each after the end of the last one.

    Args:
        read: reads the page after an id; None: the first.
        most: the maximum number of pages.
        guess: where the server does not say whether there are more, continue as long as a page has new entries.

    Raises:
        SoraError: as `read`.
    """
    after: str | None = None
    seen: set[str | None] = set()
    for _ in range(most):
        page = await read(after)
        yield page
        goes_on = page.has_more is True or (guess and page.has_more is None and page.last not in seen)
        if not goes_on or page.last in (None, after):
            return
        after = page.last
        seen.add(after)
