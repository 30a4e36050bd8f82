"""How a bucket is reached: its options, as obstore wants them, and obstore itself (the extra `objectstore`)."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from storage.bucket_errors import StoreFault

_PREFIXES = {"s3": "aws_", "gs": "google_", "az": "azure_"}
_CLIENT = frozenset({
    "allow_http", "allow_invalid_certificates", "connect_timeout", "timeout", "read_timeout", "proxy_url",
    "proxy_excludes", "user_agent",
})  # fmt: skip
"""Options of the connection, which obstore takes apart from the others."""
_ENDPOINTS = {
    "s3": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"),
    "gs": ("GOOGLE_BASE_URL",),
    "az": ("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"),
}
"""The variables that may name another server than the provider's own; the first that is set counts."""


@dataclass(frozen=True, slots=True)
class BucketOptions:
    """How buckets are reached, beside what the environment says, which obstore reads itself."""

    given: Mapping[str, str] = field(default_factory=dict)
    """By the names of environment variables, such as `AWS_ACCESS_KEY_ID`: those of `.env`, and the endpoint."""
    proxy: Mapping[str, str] = field(default_factory=dict)
    certificates: bytes | None = None
    """In PEM, in addition to the system's."""


class MissingExtra(StoreFault):
    """A package that is needed is not installed."""

    def __init__(self, text: str) -> None:
        super().__init__(text, passing=False)


def endpoint_of(scheme: str, given: Mapping[str, str]) -> tuple[str, str] | None:
    """The variable that names the server of a store of this scheme, and its value; None: it is the provider's own."""
    return next(((name, given[name]) for name in _ENDPOINTS.get(scheme, ()) if given.get(name)), None)


@functools.cache
def load_obstore() -> Any:
    """The package.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        import obstore
        import obstore.store
    except ImportError as error:
        raise MissingExtra(
            "buckets need the package obstore, which is not installed: pip install 'sora-batch[objectstore]'"
        ) from error
    return obstore


def sorted_out(scheme: str, given: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The options that obstore knows for a store of this scheme: its own, and those of the connection."""
    prefix = _PREFIXES.get(scheme, "")
    config: dict[str, Any] = {}
    client: dict[str, Any] = {}
    for name, value in given.items():
        lower = name.lower()
        if not prefix or not lower.startswith(prefix):
            continue
        option = lower.removeprefix(prefix)
        if option in _CLIENT:
            client[option] = value
        elif _knows(scheme, lower):
            config[lower] = value
    if (named := endpoint_of(scheme, given)) is not None:
        name, endpoint = named
        if name == _ENDPOINTS["s3"][0]:  # obstore knows it in the environment only, not as an option
            config["aws_endpoint_url"] = endpoint
        if endpoint.startswith("http://"):
            client.setdefault("allow_http", "true")
    return config, client


@functools.cache
def _knows(scheme: str, option: str) -> bool:
    """Whether obstore knows an option: it refuses others, and a `.env` has those of other programs too."""
    from obstore.exceptions import BaseError, UnknownConfigurationKeyError

    try:
        load_obstore().store.from_url(f"{scheme}://a/b", config={option: "x"})
    except UnknownConfigurationKeyError:
        return False
    except (BaseError, ValueError):
        return True  # it may need others with it
    return True
