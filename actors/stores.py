"""The stores of a service, by its settings."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from actors.errors import SettingsError, StorageError
from actors.settings import Settings
from storage.bucket_errors import StoreFault
from storage.storage import Storage
from storage.stores import Stores, foreign, scattered
from storage.videos import Marker

if TYPE_CHECKING:
    from storage.bucket_client import BucketOptions
    from storage.recorder import Recorder

logger = logging.getLogger(__name__)
_PROVIDERS = {
    "s3": "https://s3.amazonaws.com",
    "gs": "https://storage.googleapis.com",
    "az": "https://x.blob.core.windows.net",
}
_CERTIFICATES = "AWS_CA_BUNDLE"


def stores_of(settings: Settings) -> Stores:
    """Where files are put and whence they are had. Connects to nothing yet.

    Raises:
        SettingsError: the store is a bucket, and a proxy or a file of certificates can't be used.
    """
    return Stores(settings.video_dir, settings.video_store, partial(_options, settings))


def prepare(stores: Stores, settings: Settings, storage: Storage) -> Marker | None:
    """Check that files can be put into the store, before anything is paid for.

    Returns:
        The store's marker; None: the store is away.

    Raises:
        SettingsError: they can't.
    """
    database = storage.database.read(storage.stores.database_id)
    folder, bucket = stores.folder, stores.bucket
    try:
        marker: Marker | None = folder.prepare(database)
    except OSError as error:
        given = f"VIDEO_DIR={settings.video_dir!r}"
        if bucket is None and settings.video_store is not None:
            given = f"VIDEO_STORE={settings.video_store!r}"
        raise SettingsError(
            f"{given}: videos can't be written to {folder.root}: {error.strerror or error}; "
            "make it writable or name another folder"
        ) from error
    if bucket is not None:
        try:
            marker = bucket.prepare(database)
        except StoreFault as fault:
            if not fault.passing:
                raise SettingsError(f"VIDEO_STORE={bucket.uri}: {fault}") from fault
            marker = None
            logger.warning("the store is away; videos wait for it", extra={"action": "store_away", "error": str(fault)})
    if warning := foreign(marker, database, stores.place):
        logger.warning("the store belongs to another database", extra={"action": "foreign_store", "error": warning})
    return marker


def note_store(stores: Stores, marker: Marker | None, storage: Storage, recorder: Recorder, owner_id: str) -> None:
    """Record where this process puts files, and warn where others put them elsewhere."""
    if marker is None:
        return

    def note() -> str | None:
        storage.stores.note(owner_id, marker.store, f"{socket.gethostname()}:{stores.place}")
        return scattered(marker.store, stores.place, storage.stores.of_living())

    def told(done: Future[str | None]) -> None:
        if done.exception() is None and (warning := done.result()):
            logger.warning("files go to different stores", extra={"action": "stores_differ", "error": warning})

    recorder.write(note).add_done_callback(told)


@contextmanager
def told_by_the_store() -> Iterator[None]:
    """What the store can't do, as an error of the library.

    Raises:
        StorageError: it could not do something.
    """
    try:
        yield
    except OSError as error:
        raise StorageError(f"the store can't be asked: {error.strerror or error}") from error


def _checked_endpoint(name: str, value: str) -> str:
    """Obstore would panic at an address that is none, or take it for a path of its own."""
    try:
        url = urlsplit(value)
        usable = url.scheme in {"http", "https"} and bool(url.hostname) and url.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise SettingsError(f"{name}={value!r}: must be http://HOST[:PORT] or https://HOST[:PORT]")
    return value


def _options(settings: Settings, scheme: str) -> BucketOptions:
    """How the buckets of a scheme are reached: older files may be in another provider's than new ones."""
    from storage.bucket_client import BucketOptions, endpoint_of

    given = settings.bucket_options
    named = endpoint_of(scheme, given)
    proxy = settings.proxy_for(_checked_endpoint(*named) if named else _PROVIDERS.get(scheme, _PROVIDERS["s3"]))
    certificates = given.get(_CERTIFICATES) or settings.requests_ca_bundle or settings.ssl_cert_file
    try:
        trusted = Path(certificates).read_bytes() if certificates else None
    except OSError as error:
        raise SettingsError(f"can't read certificates from {certificates}: {error.strerror or error}") from None
    return BucketOptions(given, {"proxy_url": proxy} if proxy else {}, trusted)
