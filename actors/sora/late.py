"""Resolving, for the ledger, the POSTs of unknown outcome whose jobs have ended: nobody waits for them any more."""

from __future__ import annotations

import asyncio
import logging
from functools import partial

from actors.batch.updating import tell_settled
from actors.loop import IOLoop
from actors.settings import Settings
from actors.sora.outcomes import Unknown
from actors.sora.submission import Submitter
from storage.recorder import Recorder
from storage.servers import key_of, server_of
from storage.storage import Storage

logger = logging.getLogger(__name__)
_FIRST, _PAUSE = 60.0, 300.0
"""Seconds until the first round, and between two rounds."""
_AT_ONCE = 100


class LateResolver:
    """One per process that serves. Lives on the I/O loop."""

    def __init__(
        self,
        io: IOLoop,
        submitter: Submitter,
        storage: Storage,
        recorder: Recorder,
        settings: Settings,
        *,
        provider: str,
    ) -> None:
        self._io, self._submitter, self._storage, self._recorder = io, submitter, storage, recorder
        # With `resubmit`, what stays unknown would be given up: that is for who retries the job to say.
        self._may = settings.sora_unknown_submission == "fail"
        self._server, self._key = server_of(provider), key_of(provider)
        self._tried: set[str] = set()

    async def run(self) -> None:
        """Go round until the loop ends."""
        await asyncio.sleep(_FIRST)
        while self._may:
            try:
                await self.resolve()
            except Exception:  # the server's, or the database's: the next round may do better
                logger.exception("could not resolve submissions of ended jobs", extra={"action": "late_resolving"})
            await asyncio.sleep(_PAUSE)

    async def resolve(self) -> int:
        """Resolve what can be resolved, each once in the life of this process. Returns how many were."""
        tried = list(self._tried)  # the recorder's thread reads it
        left_unknown = partial(self._storage.submissions.left_unknown, self._server, self._key, tried, _AT_ONCE)
        found = await self._io.outcome(self._recorder.read(left_unknown))
        resolved = 0
        for entry in found:
            self._tried.add(entry.id)
            outcome = await self._submitter.resolve(entry, lambda _seconds: None)
            if isinstance(outcome, Unknown):
                continue
            await self._io.outcome(self._recorder.write(partial(self._tell, entry.id)))
            resolved += 1
        return resolved

    def _tell(self, submission_id: str) -> None:
        tell_settled(self._storage, submission_id, self._storage.database.time())
