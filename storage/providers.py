"""Where videos are made: the address of a server apart from the key that it is asked with.

A provider is recorded as one text, the base URL and the key's fingerprint, since versions before know nothing else.
"""

from __future__ import annotations

import functools
from urllib.parse import urlsplit, urlunsplit

_PORTS = {"http": 80, "https": 443}


@functools.lru_cache(maxsize=64)
def server_of(provider: str) -> str:
    """The base URL, normalised: scheme and host in lower case, port unless default, path without its final `/`.

    No user and no query: they tell accounts apart, not servers.
    """
    url = provider.partition("#")[0]
    try:
        parts = urlsplit(url)
        host, number = parts.hostname, parts.port
    except ValueError:
        return url
    if not host:
        return url
    port = "" if number in (None, _PORTS.get(parts.scheme)) else f":{number}"
    return urlunsplit(
        (parts.scheme, f"[{host}]{port}" if ":" in host else f"{host}{port}", parts.path.rstrip("/"), "", "")
    )


def key_of(provider: str) -> str:
    """The fingerprint of the key; `` where there is none."""
    return provider.partition("#")[2]
