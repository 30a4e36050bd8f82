"""What a request to a server needs on its way: headers, a proxy, certificates; as settings give them. Pure."""

from __future__ import annotations

import functools
import ipaddress
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    import ssl

_PORTS = {"http": 80, "https": 443}
_EXPIRED, _HOSTNAME, _IP_ADDRESS = 10, 62, 64
"""OpenSSL's numbers for what is wrong with a certificate."""
AUTHORIZATION = "authorization"
BEARER, NOWHERE, HEADER = "bearer", "none", "header:"
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_OURS = re.compile(
    r"accept|accept-encoding|connection|content-.*|expect|idempotency-key|keep-alive|proxy-.*|te|trailer|"
    r"transfer-encoding|upgrade|x-litellm-num-retries"
)
"""Headers on which the reading of a request, and paying once, depend: only we set them."""
_CREDENTIAL = re.compile(r"auth|cookie|credential|key|passw|secret|signature|token")
_ACCOUNT = re.compile(r"account|organi[sz]ation|project|subscription|tenant|workspace")
_LINE_END = re.compile(r"\r\n|\r|\n")
_SCHEME = re.compile(r"(?:api-?key|basic|bearer|token)\s+", re.IGNORECASE)
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
_SHAPE = 'must be a JSON object such as {"X-Team": "films"}, or lines such as X-Team: films'


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


def read_headers(text: str) -> dict[str, str]:
    """The headers in a JSON object, or in lines `Name: value`.

    Raises:
        ValueError: it is neither, or a header can't be sent; the message quotes no value.
    """
    headers: dict[str, str] = {}
    for name, value in _given(text):
        if not _TOKEN.fullmatch(name):
            raise ValueError(f"has {name!r} in place of a header name; it {_SHAPE}")
        if not isinstance(value, str):
            raise ValueError(f"the value of {name} must be a quoted string")  # noqa: TRY004  (pydantic's)
        if _CONTROL.search(value):
            raise ValueError(f"the value of {name} contains a line break or another control character: remove it")
        if _OURS.fullmatch(name.lower()):
            raise ValueError(f"{name} can't be set: sora-batch controls it")
        if name.lower() in map(str.lower, headers):
            raise ValueError(f"{name} is set twice")
        headers[name] = value.strip()
    return headers


def _given(text: str) -> Iterable[tuple[str, Any]]:
    if not text.lstrip().startswith("{"):
        return _lines(text)
    try:
        pairs = json.loads(text, object_pairs_hook=list)  # a dict would lose a duplicate name
    except (ValueError, RecursionError):
        raise ValueError(_SHAPE) from None
    return pairs if isinstance(pairs, list) else []


def _lines(text: str) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(_LINE_END.split(text), 1):
        if not line.strip():
            continue
        name, colon, value = line.partition(":")
        if not colon:
            raise ValueError(f"line {number} has no colon; it {_SHAPE}")
        yield name.strip(), value.strip()


def read_auth(text: str) -> str:
    """`bearer`, `none` or `header:NAME`, the first two in lower case.

    Raises:
        ValueError: it is none of them.
    """
    if text.lower() in (BEARER, NOWHERE):
        return text.lower()
    name = text[len(HEADER) :].strip()
    if not text.lower().startswith(HEADER) or not _TOKEN.fullmatch(name):
        raise ValueError("must be bearer, none, or header:NAME, for example header:api-key")
    if _OURS.fullmatch(name.lower()):
        raise ValueError(f"{name} can't carry the key: sora-batch controls it")
    return HEADER + name


def key_header(auth: str) -> str | None:
    """The name of the header that carries the key; None: it is not sent."""
    return None if auth == NOWHERE else "Authorization" if auth == BEARER else auth.removeprefix(HEADER)


def secrets_in(text: str) -> Iterator[str]:
    """The secrets in headers as they were written, even if they can't be parsed.

    Each value, and the key alone of `Bearer KEY` and `name=KEY; ...`: an error may quote only that.
    """
    try:
        values = list(read_headers(text).values())
    except ValueError:
        values = [line.partition(":")[2] or line for line in _LINE_END.split(text)] + _QUOTED.findall(text)
    for value in map(str.strip, values):
        yield value
        yield _SCHEME.sub("", value, count=1)
        yield from (part.partition("=")[2].strip('" ') for part in re.split("[;,]", value))


def masked_headers(text: str, hidden: str) -> str:
    """The headers' names with `hidden` for each value."""
    try:
        return ", ".join(f"{name}: {hidden}" for name in read_headers(text))
    except ValueError:
        return hidden


def telling(headers: Mapping[str, str], *, keyed: bool) -> str:
    """The headers that distinguish two users of one server; `` if none do.

    An account's name always does. What looks like a key does if no other key is sent (`keyed`): otherwise it is usually
    a gateway's, and may be replaced while videos are made.
    """
    found = sorted(
        f"{name.lower()}: {value}"
        for name, value in headers.items()
        if _ACCOUNT.search(name.lower()) or (not keyed and _CREDENTIAL.search(name.lower()))
    )
    return "\n".join(found)
