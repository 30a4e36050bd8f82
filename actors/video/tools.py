"""What all videos of a process are made with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from actors.loop import Coalescer, IOLoop
from actors.settings import Settings
from actors.sora.client import SoraClient
from actors.sora.submission import Submitter
from actors.sora.watching import Watcher
from actors.video.files import PendingFile
from storage.changes import Storage
from storage.recorder import Recorder
from storage.videos import VideoFolder


@dataclass(frozen=True, slots=True)
class Tools:
    """What a VideoTask works with: one set for all workers of a process."""

    io: IOLoop
    client: SoraClient
    submitter: Submitter
    watcher: Watcher
    storage: Storage
    recorder: Recorder
    settings: Settings
    folder: VideoFolder
    files: Coalescer[PendingFile, dict[str, Any]]
    clean_up: Callable[[str], object]
    """Removes, in the background, the files of a batch that has ended which nobody has."""
