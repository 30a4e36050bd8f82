"""URLs, as their authors may have meant them: which parts are secret, and which server one leads to.

A provider is recorded as one text, the base URL and the key's fingerprint, as earlier versions expect.
"""

from __future__ import annotations

import base64
import functools
import re
from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import unquote, unquote_plus, urlsplit, urlunsplit

HIDDEN = "***"
SHORTEST = 4
"""Characters: anything shorter would be found in half of all words."""
_SEPARATORS = re.compile(r"[@#/?:&=\[\]\s]")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")
_WITHOUT_A_HOST = re.compile(r"[^/:\[]+:(?!\d*(?:/|$))[^/]*")
"""A user and a password in place of a host and a port: the `@` and the host were forgotten."""
_PLAIN_NAME = re.compile(r"[a-z_]+\d{0,3}")
_PARAMETER = re.compile(r"[\w.-]+=.*", re.DOTALL)


def _names(listed: str) -> frozenset[str]:
    return frozenset(listed.split())


_AMQP = _names(
    "heartbeat connection_attempts retry_delay socket_timeout stack_timeout blocked_connection_timeout channel_max "
    "frame_max locale"
)
_LIBPQ = _names(
    "host hostaddr port dbname user sslmode sslcert sslrootcert sslcrl sslcrldir sslsni sslnegotiation connect_timeout "
    "application_name fallback_application_name client_encoding keepalives keepalives_idle keepalives_interval "
    "keepalives_count tcp_user_timeout target_session_attrs load_balance_hosts channel_binding gssencmode gsslib "
    "krbsrvname require_auth ssl_min_protocol_version ssl_max_protocol_version replication"
)
_TELLING = _names("password sslpassword passfile sslkey options service")
"""The other parameters of libpq."""
_HARMLESS = {
    "http": frozenset({"api-version"}), "https": frozenset({"api-version"}), "amqp": _AMQP, "amqps": _AMQP,
    "postgresql": _LIBPQ, "postgres": _LIBPQ,
}  # fmt: skip
"""By scheme, the parameters whose values are shown; all others count as secrets."""


class Url(NamedTuple):
    """A URL as its author may have meant it: its user and password may contain `@`, `#`, `/` and `?` unescaped.

    Libraries disagree about those; what any of them could take for a part of the password counts as one here.
    """

    scheme: str
    user: str | None
    password: str | None
    address: str
    """The host, the port and the path."""
    query: str
    fragment: str


def read_url(url: str) -> Url:
    """Split a URL. Never fails: anything that is not a URL is an address."""
    scheme, separator, rest = url.partition("://")
    if not separator or not _SCHEME.fullmatch(scheme):
        scheme, rest = "", url
    if scheme.lower() in {"sqlite", "file"} and rest.startswith("/"):
        return Url(scheme, None, None, rest, "", "")
    end = _end_of_user(scheme.lower(), rest)
    user = rest[:end] if end >= 0 else None
    address, _, fragment = rest[end + 1 :].partition("#")
    address, _, query = address.partition("?")
    if user is None and scheme and (alone := _WITHOUT_A_HOST.match(address)):
        user, address = alone[0], address[alone.end() :]
    name, colon, password = (user or "").partition(":")
    return Url(scheme, None if user is None else name, password if colon else None, address, query, fragment)


def _end_of_user(scheme: str, rest: str) -> int:
    """Where the `@` is that ends the user and the password; -1: there are none."""
    last, question = rest.rfind("@"), rest.find("?")
    if 0 <= question < last and "#" not in rest[:question]:
        parameters, before = rest[question + 1 :].split("&"), rest[:question]
        names = _HARMLESS.get(scheme, frozenset()) | _TELLING
        known = "=" in parameters[0] and parameters[0].partition("=")[0] in names
        a_host = re.fullmatch(r"[^:@/]*(:\d+)?(/[^@]*)?", before)
        if known or (a_host and all(map(_PARAMETER.fullmatch, parameters))):
            return before.rfind("@")  # the last `@` is part of a parameter
    return last


def masked_url(url: str) -> str:
    """The URL without its secrets: the password, a token for a user, the values of its query, its fragment."""
    parts = read_url(url)
    if not parts.scheme and parts.user is None and not re.search(r"[./:]", parts.address):
        return HIDDEN  # perhaps a key set in the wrong place
    shown = f"{parts.scheme}://" if parts.scheme else ""
    if parts.user is not None:
        named = parts.scheme and parts.password and not _is_token(parts) and not _SEPARATORS.search(parts.user)
        shown += f"{parts.user}:{HIDDEN}" if named else HIDDEN
        shown += "" if not parts.address or parts.address.startswith("/") else "@"
    return f"{shown}{parts.address}{_masked_query(parts)}{f'#{HIDDEN}' if parts.fragment else ''}"


def _is_token(parts: Url) -> bool:
    """Whether a URL's user is the secret itself: video servers accept a token without a real password."""
    return not parts.password or (parts.scheme.lower() in {"http", "https"} and len(parts.password) < SHORTEST)


def _masked_query(parts: Url) -> str:
    shown = [
        parameter if not secret or not parameter else f"{parameter.partition('=')[0]}={HIDDEN}" if "=" in parameter
        else HIDDEN
        for parameter, secret in _parameters(parts)
    ]  # fmt: skip
    return f"?{'&'.join(shown)}" if parts.query else ""


def _parameters(parts: Url) -> Iterator[tuple[str, bool]]:
    harmless = _HARMLESS.get(parts.scheme.lower(), frozenset())
    for parameter in parts.query.split("&"):
        yield parameter, parameter.partition("=")[0] not in harmless


def place_of(url: str) -> str:
    """A URL for a person: without user, query and fragment; masked if the query names the host."""
    parts = read_url(url)
    host = re.match(r"[^/]*", parts.address)
    if not parts.scheme or not host or not host[0]:
        return masked_url(url)
    return f"{parts.scheme}://{parts.address}"


def key_in(url: str) -> str:
    """What a URL contains instead of a key, as written: its password, or a token as the user; `` if neither."""
    parts = read_url(url)
    return parts.password or parts.user or ""


def query_secrets(url: str) -> list[str]:
    """The parameters of a URL's query whose values are secrets, as written."""
    return [parameter for parameter, secret in _parameters(read_url(url)) if secret and parameter]


def basic_auth(url: str) -> str | None:
    """The user and the password of a URL as HTTP sends them, in base64; None: it has none."""
    parts = read_url(url)
    if parts.user is None:
        return None
    return _base64(f"{unquote(parts.user)}:{unquote(parts.password or '')}".encode())


def without_user(url: str) -> str:
    """The URL without its user and password."""
    parts = read_url(url)
    if parts.user is None:
        return url
    query, fragment = f"?{parts.query}" if parts.query else "", f"#{parts.fragment}" if parts.fragment else ""
    return f"{parts.scheme}://{parts.address}{query}{fragment}"


_PORTS = {"http": 80, "https": 443}


def secrets_in(url: str) -> Iterator[str]:
    """The secrets in a URL, as written and as meant, in the parts that a library may quote."""
    parts = read_url(url)
    values = {parameter.partition("=")[2] or parameter for parameter, secret in _parameters(parts) if secret}
    # A password equal to the user name is shown with it.
    values |= {parts.fragment, parts.password or ""} - {parts.user}
    token = parts.user if parts.user is not None and _is_token(parts) else ""
    if token and (parts.scheme.lower() in {"http", "https"} or not _PLAIN_NAME.fullmatch(token)):
        values.add(token)
    for value in values:
        for word in (value, *_SEPARATORS.split(value)):
            yield from (word, unquote(word), unquote_plus(word))
    if parts.user is None:
        return
    user, password = parts.user, parts.password or ""
    for pair in {f"{user}:{password}", f"{unquote(user)}:{unquote(password)}"}:
        yield from (_base64(pair.encode(encoding, "replace")) for encoding in ("utf-8", "latin-1"))
    host = re.split(r"[:/?#]", parts.address)[0]
    for separator in _SEPARATORS.finditer(password):  # where a library may see the end of the user or the port
        before, behind = password[: separator.start()], password[separator.end() :]
        yield from ([f"{user}:{before}"] if before else []) + ([f"{behind}@{host}"] if behind else [])


def _base64(text: bytes) -> str:
    return base64.b64encode(text).decode()


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
