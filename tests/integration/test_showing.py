"""Commands that show batches in a browser, as real processes: `demo --web` and `web`."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.support import PATIENCE, ROOT, until

pytestmark = pytest.mark.integration

OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Command:
    """A command that answers HTTP, and what it says."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self._folder = folder
        with (folder / "out").open("wb") as out, (folder / "err").open("wb") as err:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "actors.cli", *arguments],
                env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
                cwd=folder, stdin=subprocess.DEVNULL, stdout=out, stderr=err,
            )  # fmt: skip

    @property
    def output(self) -> str:
        return (self._folder / "out").read_text()

    def says(self, pattern: str) -> str:
        """What the pattern's group matches in what it says on standard error, once it does."""

        def found() -> re.Match[str] | None:
            match = re.search(pattern, (self._folder / "err").read_text())
            assert match or self._process.poll() is None, (self._folder / "err").read_text()
            return match

        return str(until(found)[1])

    def end(self, number: int) -> int:
        self._process.send_signal(number)
        return self._process.wait(PATIENCE)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Command]]:
    started: list[Command] = []

    def start(*arguments: str) -> Command:
        started.append(Command(tmp_path, *arguments))
        return started[-1]

    yield start
    for command in started:
        command.close()


def ask(url: str, form: dict[str, str] | None = None) -> tuple[str, str]:
    """Where it led, and the text there."""
    data = urllib.parse.urlencode(form).encode() if form is not None else None
    request = urllib.request.Request(url, data=data, headers={"Accept": "text/html"})
    with OPENER.open(request, timeout=PATIENCE) as response:
        return response.url, response.read().decode()


def test_the_demo_shows_its_films_and_makes_what_is_asked_for_on_the_page(start: Callable[..., Command]) -> None:
    command = start("demo", "--web", "--json")
    page = command.says(r"page: (http://127\.0\.0\.1:\d+/batches/\S+)\n")
    site = page.partition("/batches/")[0]
    assert ask(page)[1].count('class="card') == 3
    made, _ = ask(f"{site}/new", new("One more"))
    assert command.says(r"the page stays at (\S+)/ until Ctrl-C") == site
    batch = json.loads(command.output)
    assert [job["status"] for job in batch["jobs"]] == ["completed"] * 3
    with OPENER.open(f"{site}/api/v1/batches/{batch['id']}/jobs/1/video", timeout=PATIENCE) as film:
        assert film.headers["Content-Type"] == "video/mp4"
    until(lambda: '<span class="badge is-completed">' in ask(made)[1])
    assert command.end(signal.SIGINT) == 0


def new(prompt: str) -> dict[str, str]:
    fields = "batch_name duration size model seed takes params matrix metadata concurrency"
    return dict.fromkeys(fields.split(), "") | {"key": os.urandom(8).hex(), "prompts": prompt, "do": "make"}


def test_web_shows_and_queues_but_makes_nothing(start: Callable[..., Command]) -> None:
    command = start("web", "--simulate")
    site = command.says(r"page at (\S+)/;")
    made, html = ask(f"{site}/new", new("A lake"))
    assert "Queued" in html
    with OPENER.open(f"{site}/readyz", timeout=PATIENCE) as response:
        assert json.load(response)["checks"] == ["database"]
    assert "Lease" not in ask(f"{site}/service")[1]
    assert "Queued" in ask(made)[1]
    assert command.end(signal.SIGTERM) == 0  # as serve does


def test_the_options_are_refused_before_a_database_is_made(start: Callable[..., Any], tmp_path: Path) -> None:
    command = start("demo", "--web", "0.0.0.0:0")
    assert command.says("(needs a token)")
    assert not (tmp_path / "sora-batch.db").exists()
