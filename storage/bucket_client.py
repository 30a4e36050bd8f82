"""How a bucket is asked: its options, as obstore wants them, and obstore itself (the extra `objectstore`)."""

from __future__ import annotations

import errno
import functools
import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

from storage.bucket_errors import NO_BUCKET, StoreFault, explained

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
_BLOCK = 1 << 20
_CHECKSUM = {"s3": "SHA256"}


@dataclass(frozen=True, slots=True)
class BucketOptions:
    """How buckets are reached, beside what the environment says, which obstore reads itself."""

    given: Mapping[str, str] = field(default_factory=dict)
    """By the names of environment variables, such as `AWS_ACCESS_KEY_ID`: those of `.env`, and the endpoint."""
    proxy: Mapping[str, str] = field(default_factory=dict)
    certificates: bytes | None = None
    """In PEM, in addition to the system's."""


def endpoint_of(scheme: str, given: Mapping[str, str]) -> tuple[str, str] | None:
    """The variable that names the server of a store of this scheme, and its value; None: it is the provider's own."""
    return next(((name, given[name]) for name in _ENDPOINTS.get(scheme, ()) if given.get(name)), None)


@functools.cache
def load_obstore() -> Any:
    """The package.

    Raises:
        StoreFault: it is not installed.
    """
    try:
        import obstore
        import obstore.store
    except ImportError as error:
        text = "buckets need the package obstore, which is not installed: pip install 'sora-batch[objectstore]'"
        raise StoreFault(text, passing=False) from error
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


class BucketClient:
    """A bucket, or a folder in one, as obstore asks it. What goes wrong is a `StoreFault`."""

    def __init__(self, uri: str, options: BucketOptions) -> None:
        """`uri`: without a final `/`."""
        self.uri, self._options = uri, options
        _imported_in()
        self._scheme = urlsplit(uri).scheme
        self._written_at = -math.inf
        """When a write last succeeded, by the monotonic clock; since then none has failed."""

    def _pieces(self, name: str, start: int, end: int | None) -> Iterator[bytes]:
        if end is not None and end <= start:
            return
        got, skip = self._get(name, start, end)
        left = None if end is None else end - start
        stream = iter(got.stream(min_chunk_size=_BLOCK))
        while left != 0 and (piece := self._ask("read", next, stream, None)) is not None:
            data = bytes(piece)[skip:]
            skip = max(0, skip - len(piece))
            data = data if left is None else data[:left]
            left = None if left is None else left - len(data)
            if data:
                yield data

    def _get(self, name: str, start: int, end: int | None) -> tuple[Any, int]:
        """An object's stream, and how many of its bytes come before the part that is asked for."""
        if start == 0 and end is None:
            return self._ask("read", self._obs.get, self._reading, name), 0
        part = {"offset": start} if end is None else (start, end)
        try:
            return self._ask("read", self._obs.get, self._reading, name, options={"range": part}), 0
        except StoreFault as fault:
            if "non-partial" not in str(fault.__cause__):
                raise
            return self._ask("read", self._obs.get, self._reading, name), start  # a server that knows no ranges

    def _ask(self, what: str, function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """Call obstore.

        Raises:
            FileNotFoundError: there is no such object.
            StoreFault: anything else went wrong.
        """
        try:
            answer = _interruptibly(functools.partial(function, *arguments, **named))
        except FileNotFoundError as error:
            if what == "put" or NO_BUCKET.search(str(error)):
                raise explained(self.uri, error) from error
            raise FileNotFoundError(errno.ENOENT, f"there is no such object in {self.uri}") from None
        except StoreFault:
            raise  # it was not even called: without the package, or the bucket, there is nothing to call
        except self._errors as error:
            if what == "put":
                self._written_at = -math.inf
            raise explained(self.uri, error) from error
        except BaseException as error:
            if type(error).__name__ != "PanicException":
                raise
            raise StoreFault(_panic(error), passing=False) from error
        if what == "put":
            self._written_at = time.monotonic()
        return answer

    @cached_property
    def _obs(self) -> Any:
        return load_obstore()

    @cached_property
    def _errors(self) -> tuple[type[BaseException], ...]:
        from obstore.exceptions import BaseError

        return (BaseError, ValueError)

    @cached_property
    def _quick(self) -> Any:
        """For small questions."""
        return self._open(timeout=5, retries=1)

    @cached_property
    def _slow(self) -> Any:
        """For uploads: a part of one may take long on a slow line."""
        return self._open(timeout=300, retries=2)

    @cached_property
    def _reading(self) -> Any:
        """For whole objects: however long that takes, as long as something comes."""
        return self._open(timeout=86_400, retries=2)

    def _open(self, *, timeout: int, retries: int) -> Any:
        config, client = sorted_out(self._scheme, self._options.given)
        if self._scheme in _CHECKSUM and "aws_checksum_algorithm" not in config:
            config["aws_checksum_algorithm"] = _CHECKSUM[self._scheme]
        client = {
            "connect_timeout": timedelta(seconds=5), "timeout": timedelta(seconds=timeout),
            "read_timeout": timedelta(seconds=min(timeout, 60)), **self._options.proxy, **client,
        }  # fmt: skip
        if self._options.certificates is not None:
            client["root_certificate"] = self._options.certificates
        backoff = {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=1), "base": 2}
        retry = {"max_retries": retries, "retry_timeout": timedelta(seconds=10), "backoff": backoff}
        try:
            return self._obs.store.from_url(self.uri, config=config, client_options=client, retry_config=retry)
        except self._errors as error:
            raise explained(self.uri, error) from error


def _interruptibly(function: Callable[[], Any]) -> Any:
    """Call in a thread of its own, where signals arrive: else Ctrl-C would wait for the answer of a silent store."""
    if threading.current_thread() is not threading.main_thread():
        return function()
    answer: Future[Any] = Future()

    def call() -> None:
        try:
            answer.set_result(function())
        except BaseException as error:  # noqa: BLE001  (raised where it is waited for)
            answer.set_exception(error)

    threading.Thread(target=call, name="bucket", daemon=True).start()
    return answer.result()


def _panic(error: BaseException) -> str:
    if os.getpid() != _imported_in():
        return "obstore can't be used in a process that was forked: use spawn"
    return f"obstore broke down ({error}): check VIDEO_STORE and the variables of the bucket"


@functools.cache
def _imported_in() -> int:
    """The process that first had to do with a bucket; the same in those that were forked from it."""
    return os.getpid()
