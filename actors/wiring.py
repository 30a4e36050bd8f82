"""Puts together what makes videos in a process: the client, the submitter, the watcher, the keeper, the simulator."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from actors.batch.orphans import Orphans
from actors.batch.scheduling import Rules
from actors.coalescer import Coalescer
from actors.errors import SettingsError
from actors.loop import THREADS, IOLoop
from actors.observer import Observer
from actors.settings import Settings
from actors.sora.client import SoraClient
from actors.sora.deleting import DeleteSender
from actors.sora.rate_limiter import RateLimiter
from actors.sora.submission import LeaseMargin, Submitter
from actors.sora.watching import Watcher
from actors.video.admission import Admission
from actors.video.keeping import Keeper, finish
from actors.video.tools import Bodies, Loader, Tools
from storage.recorder import Recorder
from storage.storage import Storage
from storage.stores import Stores

_SIMULATOR_STATE = ".simulator"
_SIMULATOR_POLL = timedelta(milliseconds=250)


class Wiring:
    """The tools of one process. Used on the I/O loop."""

    def __init__(
        self,
        io: IOLoop,
        settings: Settings,
        storage: Storage,
        recorder: Recorder,
        observer: Observer,
        *,
        stores: Stores,
        orphans: Orphans,
        provider: str,
        owner_id: str,
        lease: LeaseMargin,
    ) -> None:
        self._io, self._settings, self._observer, self._lease = io, settings, observer, lease
        self._storage, self._recorder, self._stores, self._orphans = storage, recorder, stores, orphans
        self._provider, self._owner_id = provider, owner_id
        self._simulator: Any = None
        self._tools: Tools | None = None
        self.deletes: DeleteSender | None = None
        """Sends the DELETEs that cancellations owe; None: SORA_DELETE_ON_CANCEL says never."""

    async def open(self, *, simulate: bool) -> tuple[Tools, Admission]:
        """Connect the client, or the simulator. Returns the tools of all videos, and the slots of the process."""
        base_url = await self._start_simulator() if simulate else self._settings.openai_base_url
        assert base_url is not None
        client = SoraClient(self._settings, base_url, RateLimiter(self._settings.sora_max_requests_per_second))
        client.observer = self._observer
        await client.__aenter__()
        submitter = Submitter(
            self._io, client, self._storage, self._recorder, self._settings,
            provider=self._provider, owner_id=self._owner_id, lease=self._lease,
        )  # fmt: skip
        submitter.observer = self._observer
        if self._settings.sora_delete_on_cancel != "never":
            whole = self._settings.sora_listing == "whole"
            self.deletes = DeleteSender(
                self._io, client, self._storage, self._recorder, provider=self._provider, whole=whole
            )  # fmt: skip

        def clean_up(batch_id: str) -> None:
            self._orphans.clean_soon(batch_id)
            if self.deletes is not None:
                self._io.call(self.deletes.wake)  # whoever cancelled it may have no server

        files = Coalescer(
            partial(self._io.offload, finish),
            THREADS,
            # Its worker was stopped while the file was put into place.
            unclaimed=lambda rest: clean_up(rest.part.path.parent.name),
        )
        watcher = Watcher(client, self._settings.sora_poll_interval.total_seconds())
        loader = Loader(self._io, client, self._storage, self._recorder)
        self._tools = Tools(
            self._io, client, submitter, loader, Bodies(loader.body), watcher, self._storage, self._recorder,
            self._settings, self._stores, Keeper(self._io, self._stores, files, clean_up), clean_up, self._observer,
        )  # fmt: skip
        return self._tools, self._connected(self._tools)

    def _connected(self, tools: Tools) -> Admission:
        """The slots of this process; what is told when a POST has left, or a DELETE is owed, is told from now on."""
        admission = Admission(self._settings.sora_max_in_flight, tools.client.rate_limiter, self._io.loop)
        tools.submitter.on_left, admission.on_left = admission.left, tools.bodies.left
        if self.deletes is not None:
            tools.submitter.on_owed = self.deletes.wake
        return admission

    async def _start_simulator(self) -> str:
        from actors.simulator import Simulator, SimulatorOptions

        # Kept on disk: an interrupted simulated batch finds its videos again, as on a real server.
        state = Path(self._settings.video_dir) / _SIMULATOR_STATE / "jobs.jsonl"
        state.parent.mkdir(parents=True, exist_ok=True)
        self._simulator = Simulator(SimulatorOptions(state_file=state))
        try:
            return str(await self._simulator.start())
        except ModuleNotFoundError as error:
            raise SettingsError(str(error)) from error

    async def close(self) -> None:
        """End what is open."""
        try:
            if self._tools is not None:
                await self._tools.keeper.close()
                await self._tools.client.__aexit__()
        finally:
            if self._simulator is not None:
                await self._simulator.stop()


def for_the_simulator(settings: Settings) -> Settings:
    """The simulator has a single store; polling it is free, and a demonstration should be quick."""
    changes: dict[str, Any] = {"sora_listing": "whole", "http_proxy": None}
    if "sora_poll_interval" not in settings.model_fields_set:
        changes["sora_poll_interval"] = _SIMULATOR_POLL
    return settings.model_copy(update=changes)


def rules_of(settings: Settings, provider: str, owner_id: str, *, serves: bool) -> Rules:
    """The rules of every batch of a process. `serves`: it processes what anybody queues."""
    rules = Rules(
        provider=provider,
        owner_id=owner_id,
        paid_attempts=settings.sora_paid_attempts,
        progress_interval=settings.progress_interval.total_seconds(),
        charges_failed=settings.sora_charges_failed == "yes",
        waits_for_budget=serves and settings.sora_budget_wait == "yes",
    )
    if settings.sora_prices is None:
        return rules
    from actors.batch.price_files import pricing

    return replace(rules, price=pricing(settings))
