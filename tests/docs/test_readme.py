"""What README.md and the guide say is so: commands, settings, exit codes, error codes, links, and every example."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from actors.cli.app import INTERRUPTED, USAGE, app
from actors.cli.doctor import settings_table
from actors.cli.results import EXIT_CODES
from actors.errors import ErrorCode
from actors.settings import Settings
from actors.simulator import SimulatorOptions
from tests.servers.simulator import simulator_in_thread

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
GUIDE = ROOT / "docs" / "US-009-batch-service-guide.md"
DOCUMENTS = sorted([README, *ROOT.glob("docs/*.md")])
COMMANDS = [command.name or "" for command in app.registered_commands]
SIGTERM = 143


def blocks(document: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", document.read_text(), re.MULTILINE | re.DOTALL)


def rows(document: Path, *heads: str) -> dict[str, list[str]]:
    """The cells of the table with these heads, by the first one without its code quotes."""
    head = f"| {' | '.join(heads)} |"
    lines = document.read_text().partition(head)[2].strip("\n").split("\n")[1:]
    table = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in _until_empty(lines)]
    return {row[0].strip("` "): row[1:] for row in table}


def _until_empty(lines: list[str]) -> Iterator[str]:
    for line in lines:
        if not line.startswith("|"):
            return
        yield line


def calls() -> Iterator[list[str]]:
    """The arguments of each `sora-batch` that a shell block or a code quote of a document calls."""
    for document in (README, GUIDE):
        quoted = re.findall(r"`([^`\n]*sora-batch [^`\n]*)`", document.read_text())
        for line in [*quoted, *"\n".join(blocks(document, "sh")).splitlines()]:
            for part in re.split(r"&&|;|\|(?!-)", line):
                words = shlex.split(part)
                while words and "=" in words[0]:
                    words.pop(0)
                if words and words[0].endswith("sora-batch"):
                    yield words[1:]


def slug(heading: str) -> str:
    """The anchor that a heading gets."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def help_of(command: str) -> str:
    return CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200"}).output


def test_every_command_that_is_called_exists_with_its_options() -> None:
    called = [words for words in calls() if not words[0].startswith("-")]
    assert {words[0] for words in called} <= set(COMMANDS)
    for command, *words in called:
        options = {word.partition("=")[0] for word in words if word.startswith("-") and word != "-"}
        assert [option for option in options if not re.search(rf"{option}\b", help_of(command))] == []


def test_the_table_of_commands_names_them_all() -> None:
    named = {cell.split()[1] for cell in rows(README, "command", "what it does")}
    assert named == set(COMMANDS)


def test_the_table_of_settings_is_complete_with_every_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for field in Settings.model_fields:
        monkeypatch.delenv(field.upper(), raising=False)
    defaults = {setting.name: setting.value for setting in settings_table(Settings())}
    told = {name: cells[0].strip("`") for name, cells in rows(README, "name", "default", "meaning").items()}
    assert told == {name: _told(name, value) for name, value in defaults.items()}


def _told(name: str, value: str | None) -> str:
    return value or ("none" if name.startswith("SORA_REFERENCE") else "unset")


def test_the_table_of_exit_codes_is_the_codes() -> None:
    told = {int(code) for code in rows(README, "code", "meaning")}
    assert told == {*EXIT_CODES.values(), USAGE, INTERRUPTED, SIGTERM}


def test_the_table_of_errors_names_every_code() -> None:
    assert set(rows(GUIDE, "code", "when", "what was paid", "what to do")) == set(ErrorCode)


def test_the_guide_names_the_codes_that_no_retry_mends() -> None:
    sentence = GUIDE.read_text().partition("for all but ")[2].partition(".")[0]
    assert set(re.findall(r"`(\w+)`", sentence)) == {code for code in ErrorCode if not code.retryable}


def test_the_test_command_is_one_line_and_the_one_that_is_run() -> None:
    block = README.read_text().partition("<!-- test-command -->\n")[2]
    assert re.match(r"```sh\n[^\n]+pytest -n 3 --cov[^\n]*\n```\n", block)


def test_every_document_that_is_printed_from_the_code_is_named_with_what_prints_it() -> None:
    printers = {path.stem for path in Path(__file__).parent.glob("*_document.py") if not path.stem.startswith("test_")}
    assert set(re.findall(r"[.](\w+_document)`", README.read_text())) == printers


def test_the_first_lines_say_what_it_is_and_how_to_try_it() -> None:
    first = "\n".join(README.read_text().splitlines()[:30])
    assert ".venv/bin/pip install --quiet '.[simulator]' && .venv/bin/sora-batch demo" in first
    assert "completed: 3 of 3 videos" in first


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_every_link_leads_somewhere(document: Path) -> None:
    prose = re.sub(r"^```.*?^```$", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)
    for link in re.findall(r"\]\((?!https?:)([^)]+)\)", prose):
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        assert target.exists(), link
        headings = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE) if anchor else []
        assert not anchor or anchor in map(slug, headings), link


@pytest.mark.integration
@pytest.mark.parametrize("document", [README, GUIDE], ids=lambda document: document.name)
def test_the_examples_run(document: Path, tmp_path: Path) -> None:
    """All Python blocks of a document, one after the other, as one program."""
    options = SimulatorOptions(latency=(0.2, 0.4), moderation=("blood",), content_bytes=1024)
    with simulator_in_thread(options) as (_, base_url):
        environment = {"PATH": os.defpath, "OPENAI_BASE_URL": base_url, "SORA_POLL_INTERVAL": "50"}
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", "\n".join(blocks(document, "python"))],
            cwd=tmp_path, env=environment | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
            timeout=60,
        )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
