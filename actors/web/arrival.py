"""Arrival: how long the body of a request may take."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from actors.web.problems import refused

BODY_SECONDS = 60.0
"""Whoever sends its body more slowly would hold a connection for as long as it likes."""


@asynccontextmanager
async def arriving() -> AsyncIterator[None]:
    """While a body is read.

    Raises:
        Refused: 408, it does not arrive in time.
    """
    try:
        async with asyncio.timeout(BODY_SECONDS):
            yield
    except TimeoutError:
        raise refused(408, f"the body did not arrive within {BODY_SECONDS:g} s") from None
