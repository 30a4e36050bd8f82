"""What `doctor` looks at: whether all that a batch needs is there and works. It changes nothing; `declare` does."""

from __future__ import annotations

import base64
import http.client
import importlib.util
import json
import os
import ssl
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from actors.settings import Settings, masked_url
from storage.database import Database, DatabaseError

_TIMEOUT = 5.0
_LONGEST_ANSWER = 1 << 20
_REFUSED = {401: "the key (OPENAI_API_KEY) is wrong or missing", 403: "the key (OPENAI_API_KEY) may not do this"}
_NO_ROUTE = "no Videos API here, or one without a listing: then a POST whose answer is lost can't be looked up"


@dataclass(frozen=True, slots=True)
class Check:
    """What one look found."""

    name: str
    ok: bool
    message: str


def all_checks(settings: Settings, *, declare: bool = False) -> Iterator[Check]:
    """Look at everything, one after the other. `declare`: make the exchanges and queues at RabbitMQ."""
    yield database(settings)
    yield video_dir(settings)
    yield server(settings)
    yield simulator()
    yield rabbitmq(settings, declare=declare)


def database(settings: Settings) -> Check:
    """See whether it is reachable, whole, and of this program's version. It is not created."""
    try:
        found = Database(settings.database_url)
        if found.path is not None and not found.path.exists():
            ok, why = _writable(found.path.parent)
            return Check("database", ok=ok, message=f"{found.path}: {why or 'will be made when first used'}")
        schema = found.read(lambda: _schema(found))
        found.close()
    except (DatabaseError, ImportError) as error:
        return Check("database", ok=False, message=str(error))
    kept = "" if found.path is None or os.access(found.path, os.W_OK) else "it can't be written to; "
    return Check("database", ok=schema.ok and not kept, message=f"{found.place}: {kept}{schema.message}")


def _schema(found: Database) -> Check:
    status = [migration for _, history in found.migrations() for migration in history]
    applied = [migration.name for migration in status if migration.applied is not None]
    newer = [migration.name for migration in status if migration.path is None]
    if newer:
        return Check(
            "schema", ok=False, message=f"newer than this program (it has {', '.join(newer)}): upgrade sora-batch"
        )
    pending = len(status) - len(applied)
    what = f"schema {applied[-1]}" if applied else "no schema yet"
    return Check("schema", ok=True, message=what + (f", {pending} to be applied when first used" if pending else ""))


def video_dir(settings: Settings) -> Check:
    """See whether files can be written there."""
    folder = Path(settings.video_dir).absolute()
    ok, why = _writable(folder)
    return Check("VIDEO_DIR", ok=ok, message=f"{folder}: {why or ('writable' if folder.is_dir() else 'will be made')}")


def _writable(folder: Path) -> tuple[bool, str]:
    """Whether files can be made in a folder, or the folder where it is not there yet; and why not."""
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not there.is_dir():
        return False, f"{there} is no folder"
    try:
        with tempfile.TemporaryFile(dir=there):
            return True, ""
    except OSError as error:
        return False, f"{there} can't be written to ({error.strerror})"


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """The key goes to nobody else."""

    def redirect_request(self, *_: Any) -> None:
        return None


def server(settings: Settings) -> Check:
    """See whether OPENAI_BASE_URL speaks the Videos API and takes the key. One GET: nothing is made."""
    if settings.openai_base_url is None:
        way_out = "set it to a server that speaks the Videos API; without it only --simulate and demo work"
        return Check("server", ok=False, message=f"OPENAI_BASE_URL is not set: {way_out}")
    place = masked_url(settings.openai_base_url)
    try:
        status, headers, body = _get(f"{settings.openai_base_url}/videos?limit=1", settings.api_key)
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        return Check(
            "server", ok=False, message=f"{place} is unreachable ({reason}): start it, or mend OPENAI_BASE_URL"
        )
    ok, message = verdict(status, headers, body)
    return Check("server", ok=ok, message=f"{place}: {message}")


def _get(url: str, key: str | None) -> tuple[int, Any, bytes]:
    # No proxies from the environment: the client uses none either.
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}),
        urllib.request.HTTPSHandler(context=ssl.create_default_context()),
        _NoRedirect(),
    )
    headers = {"Accept": "application/json", "User-Agent": "sora-batch doctor"}
    url, password = _without_user(url)
    if password:
        headers["Authorization"] = f"Basic {password}"
    elif key:
        headers["Authorization"] = f"Bearer {key}"
    request = urllib.request.Request(url, headers=headers)  # noqa: S310  (settings allow http and https only)
    try:
        with opener.open(request, timeout=_TIMEOUT) as answer:
            return answer.status, answer.headers, answer.read(_LONGEST_ANSWER)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, error.read(_LONGEST_ANSWER)


def _without_user(url: str) -> tuple[str, str]:
    """A URL as urllib takes it, and its user as HTTP tells one: that goes before the key, as in the client."""
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    name, _, password = user.partition(":")
    said = base64.b64encode(f"{unquote(name)}:{unquote(password)}".encode()).decode() if at else ""
    return parts._replace(netloc=host).geturl(), said


def verdict(status: int, headers: Any, body: bytes) -> tuple[bool, str]:  # noqa: PLR0911  (one a kind of answer)
    """What an answer to GET /videos tells."""
    if status in _REFUSED:
        return False, f"{_REFUSED[status]} (HTTP {status})"
    if status == 429:
        return True, "reachable, and limits its rate just now (HTTP 429)"
    if status == 405:
        return True, "has the Videos API, without a listing: a POST whose answer is lost can't be looked up (HTTP 405)"
    if 300 <= status < 400:
        return False, f"redirects to {headers.get('Location')}: set OPENAI_BASE_URL to that place"
    if status == 404:
        return False, f"{_NO_ROUTE} (HTTP 404; does OPENAI_BASE_URL end with /v1?)"
    if status != 200:
        return False, f"answers HTTP {status}: look at the server's log"
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return False, "no Videos API: it answers with something that is not JSON"
    if isinstance(document, dict) and isinstance(document.get("data"), list):
        return True, "has the Videos API, with a listing"
    return False, "no Videos API: its answer to GET /videos is no list"


def simulator() -> Check:
    """PyAV draws the simulated videos. Only the simulator needs it."""
    there = importlib.util.find_spec("av") is not None
    missing = "PyAV is not installed: --simulate and demo need it: pip install 'sora-batch[simulator]'"
    return Check("simulator", ok=True, message="PyAV is installed" if there else missing)


def rabbitmq(settings: Settings, *, declare: bool = False) -> Check:
    """See whether it is reachable, what of ours is there, and who listens. `declare`: make what is not there."""
    if settings.amqp_url is None:
        return Check(
            "RabbitMQ",
            ok=not declare,
            message="AMQP_URL is not set: no commands from RabbitMQ, no events to it",
        )
    import pika

    from actors.broker import topology
    from actors.broker.quiet import hush
    from actors.cli.broker_checks import look
    from actors.client.line import LOST, Broker, unreachable

    url = settings.amqp_url.get_secret_value()
    try:
        with hush(), pika.BlockingConnection(topology.connection_parameters(url)) as connection:
            ok, message = look(connection, settings.amqp_queue_type, declare=declare)
    except LOST as error:
        return Check("RabbitMQ", ok=False, message=str(unreachable(Broker(url), error)))
    return Check("RabbitMQ", ok=ok, message=f"{masked_url(url)}: {message}")
