"""The program in docs/http.md, as it stands there, against a service; and `sora-batch web`."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from actors.service import BatchService
from actors.web.listener import Listener
from tests.actors.web.conftest import Client
from tests.integration.support import PATIENCE, ROOT, until, videos
from tests.javascript.node import node
from tests.provider.client import Provider

pytestmark = pytest.mark.integration


def test_the_javascript_program_makes_a_batch_and_gets_its_films(
    start_service: Callable[..., BatchService], provider: Provider, tmp_path: Path
) -> None:
    service = start_service(web_token="a-token")
    service.serve()
    listener = Listener(service, "0", "a-token")
    program = re.findall(r"^```js\n(.*?)^```$", (ROOT / "docs" / "http.md").read_text(), re.MULTILINE | re.DOTALL)[0]
    try:
        moved = f"process.chdir({json.dumps(str(tmp_path))});\n{program}"
        done = node("-e", moved, SORA_BATCH_URL=listener.url, WEB_TOKEN="a-token")
    finally:
        listener.close()
    assert done.returncode == 0, done.stderr
    *films, ended, cancelled = done.stdout.splitlines()
    assert sorted(line.partition(" % ")[2].partition(":")[0] for line in films) == [
        "A sunset over the ocean", "City lights at night",
    ]  # fmt: skip
    assert ended == "Nature scenes: completed"
    assert cancelled == "cancelled 1 of 1, may be charged: 0"
    made = sorted(path.read_bytes() for path in (tmp_path / "videos").glob("*/*.mp4"))
    assert sorted(path.read_bytes() for path in tmp_path.glob("*.mp4")) == made
    assert len(made) == 2


def test_web_queues_what_a_service_makes_and_makes_nothing_itself(
    options: Callable[..., dict[str, Any]],
    start_service: Callable[..., BatchService],
    provider: Provider,
    tmp_path: Path,
) -> None:
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    environment |= {name.upper(): str(value) for name, value in options().items()}
    words = [sys.executable, "-m", "actors.cli", "web", "0", "--no-open"]
    with subprocess.Popen(words, env=environment, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        found = re.search(r"page at http://127.0.0.1:(\d+)/", process.stderr.readline())
        try:
            assert found is not None
            client = Client(int(found[1]))
            assert client("/readyz").json == {"status": "ok", "checks": ["database"]}
            assert client("/api/v1/batches", videos("a: one", id="b")).status == 201
            service = start_service()
            assert service.get_batch_status("b").status == "pending"
            assert provider.ledger()["videos"] == []
            service.serve()
            until(lambda: client("/api/v1/batches/b").json["status"] == "completed")
        finally:
            process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
