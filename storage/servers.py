"""Servers: their addresses, without the key, and what is known about them.

A provider is recorded as one text, the base URL and the key's fingerprint, as earlier versions expect.
"""

from __future__ import annotations

import functools
from urllib.parse import urlsplit, urlunsplit

from storage.database import Database

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
    """The fingerprint of the key; "" if there is none."""
    return provider.partition("#")[2]


class Servers:
    """Facts as rows. Reads need a connection, writes a transaction, opened by the caller."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def reuses_ids(self, server: str) -> bool:
        """Whether it has reused an id: then what it lists under that id may be either video."""
        return self._learned(server, "reuses_ids")

    def note_reused_ids(self, server: str) -> None:
        """Record that it has reused an id."""
        self._note(server, "reuses_ids")

    def note_deletes_only_records(self, server: str) -> None:
        """Record that its DELETE removes only the record of a video and stops nothing."""
        self._note(server, "deletes_only_records")

    def carry_over(self, server: str, moved_to: str) -> None:
        """Copy what is known about a server to its new address."""
        for fact in ("reuses_ids", "deletes_only_records"):
            if self._learned(server, fact):
                self._note(moved_to, fact)

    def _learned(self, server: str, fact: str) -> bool:
        rows = self._database.execute(f"SELECT {fact} FROM servers WHERE server=?", (server,)).fetchall()
        return bool(rows and rows[0][0])

    def _note(self, server: str, fact: str) -> None:
        self._database.execute(
            f"INSERT INTO servers (server, {fact}) VALUES (?, TRUE) ON CONFLICT (server) DO UPDATE SET {fact}=TRUE",
            (server,),
        )
