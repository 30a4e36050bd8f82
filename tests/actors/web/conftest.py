"""A listener that answers, and what is asked of it."""

import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from actors.service import BatchService
from actors.settings import Settings
from actors.web.listener import Listener
from tests.docs.described import check_answered


class _Stays(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}), _Stays())


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Any
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def problem(self) -> tuple[int, str]:
        """Status and code of an error, which is as RFC 9457 has it."""
        document = self.json
        assert self.headers["Content-Type"].startswith("application/problem+json")
        assert document["status"] == self.status
        assert document["type"] == f"urn:sora-batch:error:{document['code']}"
        return self.status, document["code"]


def _answer(request: urllib.request.Request) -> Answer:
    try:
        with OPENER.open(request, timeout=30) as response:
            return Answer(response.status, response.headers, response.read())
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, error.headers, error.read())


class Client:
    """Asks a listener."""

    def __init__(self, port: int, token: str | None = None) -> None:
        self.url, self.token = f"http://127.0.0.1:{port}", token
        self.listener: Any = None

    def __call__(self, path: str, body: Any = None, method: str | None = None, **headers: str) -> Answer:
        """`body`: bytes as they are, anything else as JSON. `headers`: with `_` for `-`."""
        given = {name.replace("_", "-"): text for name, text in headers.items()}
        if self.token is not None:
            given.setdefault("Authorization", f"Bearer {self.token}")
        if body is not None:
            given.setdefault("Content-Type", "application/json")
            body = body if isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}{path}", data=body, headers=given, method=method)
        answer = _answer(request)
        check_answered(request.get_method(), path, answer.status, answer.headers["Content-Type"], answer.body)
        return answer

    def form(self, path: str, **fields: str) -> Answer:
        """Send a form, as a browser does that has no token."""
        kind = "application/x-www-form-urlencoded"
        return Client(int(self.url.rpartition(":")[2]))(
            path, urllib.parse.urlencode(fields).encode(), "POST", Content_Type=kind
        )


@pytest.fixture
def settings(tmp_path) -> Callable[..., Settings]:
    def make(**changes: Any) -> Settings:
        folder = {"database_url": f"sqlite:///{tmp_path}/batches.db", "video_dir": str(tmp_path / "videos")}
        return Settings(_env_file=None, **{**folder, **changes})

    return make


@pytest.fixture
def service(settings) -> Iterator[BatchService]:
    with BatchService(settings(), simulate=True) as service:
        yield service


@pytest.fixture
def listen() -> Iterator[Callable[..., Client]]:
    """Have a service listen."""
    listeners: list[Listener] = []

    def start(service: BatchService, token: str | None = None) -> Client:
        listeners.append(Listener(service, "127.0.0.1:0", token))
        client = Client(listeners[-1].port, token)
        client.listener = listeners[-1]
        return client

    yield start
    for listener in listeners:
        listener.close()


@pytest.fixture
def client(listen, service) -> Client:
    return listen(service)


def request_of(*prompts: str, **more: Any) -> dict[str, Any]:
    return {"videos": [{"prompt": prompt} for prompt in prompts], **more}
