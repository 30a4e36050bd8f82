"""A bucket as a store of finished files: `s3://bucket/prefix`, `gs://`, `az://`, by obstore (the extra `objectstore`).

An object gets the name that a file in a folder would get. It appears whole or not at all, is not put over another one,
and carries its SHA-256. No condition on a PUT is relied upon: some servers ignore it.
"""

from __future__ import annotations

import hashlib
import time
import uuid
from collections.abc import Callable, Collection, Iterator
from datetime import timedelta
from pathlib import Path
from typing import IO

from storage.bucket_client import BucketClient
from storage.bucket_errors import StoreFault
from storage.bucket_lifecycle import doubt
from storage.stores import Reads, begun
from storage.videos import EXTENSIONS, MARKER, Marker, names_of

PART = 5 << 20
"""Bytes of a part of a large upload: the least that S3 takes. Two are on their way while the next one is read."""
_AT_ONCE = 2
_PROVED_FOR = 300.0
"""Seconds for which a successful write proves that the bucket can be written to."""


class Stopped(StoreFault):
    """An upload was stopped before its end; what had arrived of it was discarded there."""

    def __init__(self) -> None:
        super().__init__("the upload was stopped", passing=True)


class Bucket(BucketClient):
    """A bucket, or a folder in one. Its methods block; their errors are `StoreFault`s."""

    # --- what every store can do

    def size(self, uri: str) -> int | None:
        """How many bytes an object has; None: there is none."""
        try:
            return int(self._ask("looked at", self._obs.head, self._quick, self._name(uri))["size"])
        except FileNotFoundError:
            return None

    def read(self, uri: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """The bytes of an object, in pieces."""
        return begun(self._pieces(self._name(uri), start, end))

    def presigned(self, uri: str, lifetime: timedelta, method: Reads = "GET") -> str:
        """A URL that gives an object to whoever has it and asks by this method, for some time.

        Raises:
            StoreFault: the credentials sign nothing: there are none, or they are a signature themselves.
        """
        try:
            return str(self._ask("signed", self._obs.sign, self._quick, method, self._name(uri), lifetime))
        except StoreFault as fault:
            raise StoreFault(f"the credentials sign no URLs ({fault})", passing=fault.passing) from fault

    def remove(self, uri: str) -> None:  # crash point: remove object
        """Remove an object. One that is not there is as good as removed."""
        try:
            self._ask("removed", self._obs.delete, self._quick, self._name(uri))
        except FileNotFoundError:
            return

    # --- placing

    def put(  # crash point: upload
        self, file: Path, job_id: str, kind: str, sha256: str, doomed: Collection[str], stopped: Callable[[], bool]
    ) -> str:
        """Put a file into the bucket, under the name that its job and its checksum give it.

        Nothing is replaced: an object with the same bytes stays, and other bytes keep their name.

        Args:
            file: what to put.
            job_id: whose it is.
            kind: its content type, which gives its name its extension.
            sha256: its checksum.
            doomed: addresses that are not to be used: what is there is about to be removed.
            stopped: asked between two blocks: whether to give up.

        Returns:
            Its address.

        Raises:
            StoreFault: it is not there, as far as is known. Another attempt does no harm.
            Stopped: it was given up.
        """
        size, batch_id = file.stat().st_size, job_id.rpartition("-")[0]
        for name in names_of(job_id, sha256, EXTENSIONS.get(kind, ".bin")):
            uri = f"{self.uri}/{batch_id}/{name}"
            if uri not in doomed and self.restore(file, uri, kind, size, sha256, stopped):
                return uri
        raise StoreFault(f"{uri} already exists with different content; remove it", passing=False)

    def restore(
        self, file: Path, uri: str, kind: str, size: int, sha256: str, stopped: Callable[[], bool] = lambda: False
    ) -> bool:
        """Put a file to an address; False: other bytes are there. The arguments are those of `put`."""
        name = self._name(uri)
        there = self.size(uri)
        if there is not None:
            return there == size and self._has(name, sha256)
        options = {"attributes": {"Content-Type": kind, "sha256": sha256}}
        if size <= PART:
            self._ask("put", self._obs.put, self._slow, name, file.read_bytes(), use_multipart=False, **options)
        else:
            with file.open("rb") as opened:
                parts = {"chunk_size": PART, "max_concurrency": _AT_ONCE}
                self._ask("put", self._obs.put, self._slow, name, _blocks(opened, stopped), **parts, **options)
        arrived = self.size(uri)
        if arrived != size:
            raise StoreFault(f"{uri} has {arrived} bytes instead of {size} after it was put there", passing=True)
        return True

    def _has(self, name: str, sha256: str) -> bool:
        """Whether an object has these bytes: by its attribute, or, where a server keeps none, by reading it."""
        attributes = self._ask("looked at", self._obs.get, self._quick, name, options={"head": True}).attributes
        told = attributes.get("sha256")
        if told is not None:
            return bool(told == sha256)
        digest = hashlib.sha256()
        for piece in self._pieces(name, 0, None):
            digest.update(piece)
        return digest.hexdigest() == sha256

    # --- of a batch, and of all

    def uris(self, batch_id: str) -> list[str]:
        """The addresses of all objects of a batch."""
        found = self._ask("listed", lambda: list(self._obs.list(self._quick, f"{batch_id}/")))
        return [f"{self.uri}/{meta['path']}" for page in found for meta in page]

    def batch_ids(self) -> list[str]:
        """The ids of all batches that have objects here."""
        found = self._ask("listed", self._obs.list_with_delimiter, self._quick)
        names = (prefix.rpartition("/")[2] for prefix in found["common_prefixes"])
        return sorted(name for name in names if not name.startswith("."))

    def remove_batch(self, batch_id: str) -> None:
        """Remove all objects of a batch."""
        for uri in self.uris(batch_id):
            self.remove(uri)

    # --- what it is for

    def prepare(self, database: str) -> Marker:  # crash point: prepare bucket
        """Check that it takes objects, before anything is paid for.

        Args:
            database: whose it is from now on, if it has no marker.

        Returns:
            Its marker.
        """
        content = self.marker()
        marker = Marker.parse(content) or Marker.new(database)
        if content is None:
            self._mark_first(marker.content)
        else:
            self.mark(marker.content)
        return Marker.parse(self.marker()) or marker

    def _mark_first(self, content: bytes) -> None:
        """Write a marker where there is none. Of two at once the first counts; without conditions there, the last."""
        try:
            self._ask("put", self._obs.put, self._quick, MARKER, content, use_multipart=False, mode="create")
        except StoreFault:
            if self.marker() is None:
                self.mark(content)

    def obstacle(self) -> str | None:
        """Why it takes no objects just now; None: it does. Writes only where nothing was written for a while."""
        try:
            content = self.marker()
            if content is not None and time.monotonic() - self._written_at > _PROVED_FOR:
                self.mark(content)
        except StoreFault as fault:
            return str(fault)
        return None

    def examine(self) -> list[str]:
        """Do once what is done with every file, with a few bytes.

        Returns:
            What is doubtful: a sentence each.

        Raises:
            StoreFault: something does not work.
        """
        probe, content = f"{self.uri}/{MARKER}-probe/{uuid.uuid4().hex}", b"sora-batch doctor"
        self._ask("put", self._obs.put, self._quick, self._name(probe), content, use_multipart=False)
        try:
            if b"".join(self.read(probe)) != content:
                raise StoreFault("what was read back differs from what was written", passing=False)
            self.uris(f"{MARKER}-probe")
            unsigned = self._sign_obstacle(probe)
        finally:
            self.remove(probe)
        return [each for each in (unsigned, doubt(self.uri, self._options.given)) if each is not None]

    def _sign_obstacle(self, uri: str) -> str | None:
        """What no presigned URLs mean; None: there are some."""
        try:
            self.presigned(uri, timedelta(minutes=1))
        except StoreFault as fault:
            return f"{fault}, so a service sends the files itself"
        return None

    def marker(self) -> bytes | None:
        """What is written into the marker; None: there is none."""
        try:
            return bytes(self._ask("read", lambda: self._obs.get(self._quick, MARKER).bytes()))
        except FileNotFoundError:
            return None

    def mark(self, content: bytes) -> None:
        """Write the marker: proves, too, that the bucket takes objects."""
        self._ask("put", self._obs.put, self._quick, MARKER, content, use_multipart=False)

    def _name(self, uri: str) -> str:
        return uri.removeprefix(f"{self.uri}/")


def _blocks(file: IO[bytes], stopped: Callable[[], bool]) -> Iterator[bytes]:
    """The blocks of a file. Where this raises, obstore aborts the upload."""
    while block := file.read(PART):  # in smaller blocks it takes a fifth longer
        if stopped():
            raise Stopped
        yield block
