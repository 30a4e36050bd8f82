"""The tools that all videos of a process share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from actors.loop import IOLoop
from actors.observer import Observer
from actors.settings import Settings
from actors.sora.client import SoraClient
from actors.sora.submission import Submitter
from actors.sora.watching import Watcher
from actors.video.bodies import Bodies, Loader
from actors.video.keeping import Keeper
from storage.recorder import Recorder
from storage.storage import Storage
from storage.stores import Stores


@dataclass(frozen=True, slots=True)
class Tools:
    """What a VideoTask uses: one set for all workers of a process."""

    io: IOLoop
    client: SoraClient
    submitter: Submitter
    loader: Loader
    bodies: Bodies
    watcher: Watcher
    storage: Storage
    recorder: Recorder
    settings: Settings
    stores: Stores
    keeper: Keeper
    clean_up: Callable[[str], object]
    """Removes the orphan files of an ended batch, in the background."""
    observer: Observer = field(default_factory=Observer)
