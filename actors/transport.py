"""Proxies and certificates on the way to a server, configured by the usual variables. Pure."""

from __future__ import annotations

import functools
import ipaddress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    import ssl

_PORTS = {"http": 80, "https": 443}
_EXPIRED, _HOSTNAME, _IP_ADDRESS = 10, 62, 64
"""OpenSSL's numbers for what is wrong with a certificate."""


def read_proxy(text: str) -> str:
    """The URL of a proxy; as usual, `http://` may be omitted.

    Raises:
        ValueError: it can't be used.
    """
    url = text if "://" in text else f"http://{text}"
    try:
        parts = urlsplit(url)
        if parts.scheme in _PORTS and parts.hostname and parts.port != 0:
            return url
    except ValueError:
        pass
    raise ValueError("must be the URL of an HTTP proxy, such as http://proxy.example:3128 (SOCKS is not supported)")


def read_listen(text: str) -> tuple[str, int]:
    """Where to listen, `[HOST:]PORT`: without a host, only this machine reaches it. Port 0: any that is free.

    Raises:
        ValueError: it is no such place.
    """
    host, _, port = text.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    named = bare or ":" not in text
    if not (named and port.isascii() and port.isdigit() and int(port) < 65_536) or (":" in bare and bare == host):
        raise ValueError("must be PORT or HOST:PORT, such as 8080, 127.0.0.1:8080 or [::1]:8080")
    return bare or "127.0.0.1", int(port)


def read_public_url(text: str) -> str:
    """The URL under which others reach a service, without the final `/`.

    Raises:
        ValueError: it is none that a person may be given.
    """
    try:
        parts = urlsplit(text)
        usable = parts.scheme in _PORTS and parts.hostname is not None and parts.port != 0 and parts.username is None
    except ValueError:
        usable = False
    if not usable or not text.isprintable() or {" ", "?", "#"} & set(text):
        raise ValueError(
            "must be an http:// or https:// URL without user, query and fragment, such as https://videos.example.com"
        )
    return text.rstrip("/")


def is_bypassed(url: str, no_proxy: str) -> bool:
    """Whether `NO_PROXY` matches a URL's host: by name, domain, network or `*`, perhaps with a port."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or _PORTS.get(parts.scheme)
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        address = None
    for entry in map(str.strip, no_proxy.lower().split(",")):
        name = entry.removesuffix(f":{port}").removeprefix("*").lstrip(".")
        if entry == "*" or (name and (host == name or host.endswith(f".{name}"))):
            return True
        if address is not None and _is_in(address, name):
            return True
    return False


def _is_in(address: ipaddress.IPv4Address | ipaddress.IPv6Address, network: str) -> bool:
    try:
        return address in ipaddress.ip_network(network.strip("[]"), strict=False)
    except ValueError:
        return False


@functools.lru_cache(maxsize=8)  # reading all the certificates of a system takes a while
def trust(file: str | None, folder: str | None, bundle: str | None) -> ssl.SSLContext:
    """The TLS context that verifies servers.

    Args:
        file: `SSL_CERT_FILE`, instead of the system's file.
        folder: `SSL_CERT_DIR`, instead of the system's folder.
        bundle: `REQUESTS_CA_BUNDLE`, a file or a folder, in addition to these.

    Raises:
        OSError: a file can't be read, or contains no certificates. A missing folder contains none, as for OpenSSL.
    """
    import ssl  # needed only to reach a server

    usual = ssl.get_default_verify_paths()
    file = file or _there(usual.openssl_cafile)
    context = ssl.create_default_context(cafile=file, capath=_there(folder or usual.openssl_capath))
    if bundle is not None and bundle != file:
        if Path(bundle).is_dir():
            context.load_verify_locations(capath=bundle)
        else:
            context.load_verify_locations(cafile=bundle)
    return context


def _there(path: str) -> str | None:
    return path if Path(path).exists() else None


def wrong_with(error: Exception) -> tuple[str, str]:
    """Why a certificate can't be verified, and what to do."""
    why = str(getattr(error, "verify_message", "") or error)
    code = getattr(error, "verify_code", None)
    if code in (_HOSTNAME, _IP_ADDRESS):
        return why, "set OPENAI_BASE_URL to the host that it was issued for"
    return why, "renew it" if code == _EXPIRED else "set SSL_CERT_FILE to the file of its CA"
