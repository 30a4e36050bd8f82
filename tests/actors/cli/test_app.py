from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from actors.cli import main
from actors.service import BatchService
from actors.simulator import Simulator

Call = Callable[..., Any]
COMMANDS = (
    "run", "demo", "create", "status", "list", "cancel", "retry", "resume", "history", "prune", "simulator", "doctor",
)  # fmt: skip
HEAVY = {"pydantic", "aiohttp", "peewee", "rich", "yaml", "pykka", "asyncio"}
ROOT = Path(__file__).parents[3]


def program(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The program in a process of its own."""
    given = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(
        [sys.executable, "-m", "actors.cli", *arguments], env=given, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_examples(call: Call, command: str) -> None:
    result = call(command, "--help")
    assert result.exit_code == 0
    assert f"Examples:\n    sora-batch {command}" in result.stdout
    assert "--verbose" in result.stdout


def test_help_names_every_command_and_imports_nothing_heavy() -> None:
    code = (
        "import sys, contextlib\n"
        "from actors.cli import main\n"
        "with contextlib.suppress(SystemExit): main(['--help'])\n"
        f"print(sorted({HEAVY!r} & set(sys.modules)))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert result.stdout.endswith("[]\n")
    for command in COMMANDS:
        assert f"\n  {command} " in result.stdout


def test_the_module_is_the_program(tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path}/a.db"
    result = program("status", "nope", "--json", DATABASE_URL=database)
    assert result.returncode == 2
    assert json.loads(result.stdout)["error"]["code"] == "not_found"
    sentence = f"there is no batch 'nope' in the database {tmp_path}/a.db (the database does not exist yet)"
    assert result.stderr == f"sora-batch: {sentence}\n"


def test_main_exits_with_the_code(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["list"])
    assert left.value.code == 0
    assert capsys.readouterr().out.startswith("no batches in ")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("status", "--json"), "Missing argument 'ID'."),
        (("list", "--json", "--bogus"), "No such option: --bogus"),
        (("bogus", "--json"), "No such command 'bogus'."),
        (("run", "-p", "Sea", "--json", "--duration", "long"), "'--duration': must be a whole number (got 'long')"),
        (("list", "--limit", "0", "--json"), "'--limit': must be 1 or more (got '0')"),
    ],
)
@pytest.mark.usefixtures("home")
def test_a_usage_error_is_plain_and_one_document_with_json(
    call: Call, arguments: tuple[str, ...], sentence: str
) -> None:
    result = call(*arguments)
    assert result.exit_code == 2
    error = json.loads(result.stdout)["error"]
    assert error["code"] == "invalid_request"
    assert sentence in error["message"]
    assert error["message"] in result.stderr
    without = call(*(each for each in arguments if each != "--json"))
    assert (without.exit_code, without.stdout, without.stderr) == (2, "", result.stderr)


LOOKING = [
    (("list",), 0), (("list", "--json"), 0), (("list", "--after", "x"), 2), (("status", "x"), 2), (("history", "x"), 2),
    (("audit",), 2), (("cancel", "x", "y"), 2), (("retry", "x"), 2), (("resume", "x"), 2),
]  # fmt: skip


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize(("arguments", "code"), LOOKING)
def test_looking_creates_no_database(call: Call, home: Path, arguments: tuple[str, ...], code: int) -> None:
    result = call(*arguments)
    assert result.exit_code == code
    assert ("(the database does not exist yet)" in result.stderr) is (code == 2)
    assert list(home.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has /dev/full")
def test_a_full_disk_behind_standard_output_is_a_sentence(tmp_path: Path) -> None:
    command = f"{sys.executable} -m actors.cli list --json > /dev/full"
    given = {**os.environ, "PYTHONPATH": str(ROOT), "DATABASE_URL": f"sqlite:///{tmp_path}/a.db"}
    result = subprocess.run(["/bin/sh", "-c", command], env=given, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr.startswith("sora-batch: unexpected OSError: [Errno 28] No space left on device")
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("closed", ["2>&-", "1>&-", "0<&-", "0<&- 1>&- 2>&-"])
def test_a_stream_that_is_closed_is_done_without(tmp_path: Path, server: Simulator, closed: str) -> None:
    command = f"exec {sys.executable} -m actors.cli run -p Sea --id nature {closed}"
    result = subprocess.run(["sh", "-c", command], env=os.environ, capture_output=True, text=True, check=False)
    assert result.returncode == 0
    assert ("1 of 1 video" in result.stdout) is ("1>" not in closed)
    assert ("nature-01 completed" in result.stderr) is ("2>" not in closed)
    with BatchService() as service:  # its file was not opened in the place of a stream, and written over
        assert service.get_batch_status("nature").status == "completed"


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("status na", ["nature"]), ("retry one na", ["nature"]), ("resume ", ["one", "nature"]), ("cancel no", [""]),
        ("list --status pa", ["partial"]), ("list --after o", ["one"]),
    ],
)  # fmt: skip
def test_a_shell_completes_ids_and_statuses(home: Path, words: str, offered: list[str]) -> None:
    with BatchService() as service:
        for batch_id in ("nature", "one"):
            service.create_batch({"id": batch_id, "videos": [{"prompt": "Sea"}]})
    line = f"sora-batch {words}"
    number = str(len(line.split(" ")) - 1)
    result = program(_SORA_BATCH_COMPLETE="complete_bash", COMP_WORDS=line, COMP_CWORD=number)
    assert sorted(result.stdout.strip().split("\n")) == sorted(offered)


def test_a_shell_that_completes_an_id_creates_no_database(home: Path) -> None:
    result = program(_SORA_BATCH_COMPLETE="complete_bash", COMP_WORDS="sora-batch status ", COMP_CWORD="2")
    assert (result.stdout.strip(), result.stderr) == ("", "")
    assert list(home.iterdir()) == []


def test_the_version_is_told(call: Call) -> None:
    result = call("--version")
    assert (result.exit_code, result.stdout.split()[0]) == (0, "sora-batch")


@pytest.mark.parametrize("arguments", [("status", "x"), ("-v", "status", "x"), ("status", "x", "-v")])
def test_what_nobody_expected_is_one_line_and_a_traceback_with_v(
    call: Call, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("a bug\x1b[31m")

    BatchService().close()
    monkeypatch.setattr(BatchService, "get_batch_status", fail)
    result = call(*arguments)
    assert result.exit_code == 1
    assert "sora-batch: unexpected RuntimeError: a bug [31m" in result.stderr
    assert ("Traceback" in result.stderr) is ("-v" in arguments)
    assert ("run again with -v" in result.stderr) is ("-v" not in arguments)


def test_an_interrupted_command_says_so_by_its_code(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    BatchService().close()
    monkeypatch.setattr(BatchService, "get_batch_status", interrupt)
    assert call("status", "x").exit_code == 130


def test_a_missing_extra_is_a_matter_of_installing(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise ModuleNotFoundError("pip install 'sora-batch[simulator]'")

    monkeypatch.setattr("actors.simulator.films.require_drawing", missing)
    result = call("demo")
    assert result.exit_code == 2
    assert "pip install 'sora-batch[simulator]'" in result.stderr
    assert not list(Path.cwd().glob("*.db"))


def test_an_invalid_request_names_its_fields_in_json(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")
    document = json.loads(call("run", "-p", "", "--json").stdout)
    assert document["error"]["errors"][0]["field"] == "/videos/0/prompt"


def test_log_level_and_format_are_obeyed(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOG_LEVEL", "loud")
    result = call("list")
    assert result.exit_code == 2
    assert "LOG_LEVEL='loud'" in result.stderr


def test_the_simulator_serves_until_it_is_told_to_end(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "actors.cli", "simulator", "--port", "0", "--content-bytes", "9", "--api-key", "k"]
    command += ["--replicas", "2", "--model", "mine", "--profile", "sglang"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as simulator:
        assert simulator.stdout is not None
        base_url = simulator.stdout.readline().split(" at ")[1].split()[0]
        request = urllib.request.Request(f"{base_url}/videos", headers={"Authorization": "Bearer k"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert json.loads(answer.read())["data"] == []
            assert answer.headers["X-Simulated-Replica"] in {"0", "1"}
        request.full_url = f"{base_url}/models"
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert [model["id"] for model in json.loads(answer.read())["data"]] == ["mine"]
        simulator.terminate()
        assert simulator.wait(timeout=10) == 0


@pytest.mark.parametrize("command", ["serve", "web"])
def test_a_service_that_is_called_wrongly_says_so_in_its_log(call, monkeypatch, command):
    monkeypatch.setenv("LOG_FORMAT", "json")
    done = call(command, "--bogus")
    assert done.exit_code == 2
    (line,) = done.stderr.splitlines()
    told = json.loads(line)
    assert (told["event"], told["level"]) == ("failed", "ERROR")
    assert "No such option: --bogus" in told["message"]
    assert f"sora-batch {command} -h" in told["message"]
    assert call("list", "--bogus").stderr.startswith("Usage: ")
