"""The stores of a service, by its settings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from actors.errors import SettingsError
from actors.settings import Settings
from storage.stores import Stores

if TYPE_CHECKING:
    from storage.buckets import BucketOptions

_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT", "AZURE_ENDPOINT")
_CERTIFICATES = "AWS_CA_BUNDLE"


def stores_of(settings: Settings) -> Stores:
    """Where files are put and whence they are had. Connects to nothing yet.

    Raises:
        SettingsError: the store is a bucket, and a proxy or a file of certificates can't be used.
    """
    return Stores(settings.video_dir, settings.video_store, lambda: _options(settings))


def _options(settings: Settings) -> BucketOptions:
    from storage.buckets import BucketOptions

    given = settings.bucket_options
    endpoint = next((given[name] for name in _ENDPOINTS if name in given), "https://s3.amazonaws.com")
    proxy = settings.proxy_for(endpoint)
    certificates = given.get(_CERTIFICATES) or settings.requests_ca_bundle or settings.ssl_cert_file
    try:
        trusted = Path(certificates).read_bytes() if certificates else None
    except OSError as error:
        raise SettingsError(f"can't read certificates from {certificates}: {error.strerror or error}") from None
    return BucketOptions(given, {"proxy_url": proxy} if proxy else {}, trusted)
