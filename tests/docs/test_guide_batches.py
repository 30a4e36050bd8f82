"""The batch files that the guide shows are what it says of them."""

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from actors.cli.app import app

GUIDE = Path(__file__).parents[2] / "docs" / "US-009-batch-service-guide.md"
PNG = b"\x89PNG\r\n\x1a\n"


def shown(first_line: str) -> str:
    """The block that begins so."""
    return next(
        block for block in re.findall(r"^```\w+\n(.*?)^```$", GUIDE.read_text(), re.MULTILINE | re.DOTALL)
        if block.startswith(first_line)
    )  # fmt: skip


@pytest.mark.parametrize(
    ("first_line", "name", "total"),
    [
        ("batch_name: Spring catalogue", "spring.yaml", 90),
        ("- prompt: A boat that leaves", "boats.yaml", 1),
        ("prompt,seconds,seed,takes", "boats.csv", 3),
        ('{"prompt": "A boat leaves"', "boats.jsonl", 2),
    ],
)
def test_a_batch_file_of_the_guide_is_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first_line: str, name: str, total: int
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BATCH_MAX_SIZE", "90")
    (tmp_path / "shots").mkdir()
    for picture in ("studio.png", "shots/harbour-empty.png", "shots/boat.png", "shots/empty.png"):
        (tmp_path / picture).write_bytes(PNG)
    (tmp_path / name).write_text(shown(first_line))
    result = CliRunner().invoke(app, ["create", name, "--dry-run", "--json"])
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    assert document["total"] == total
    if total == 90:
        assert shown(first_line).count("\n") <= 20
        assert {job["params"]["fps"] for job in document["jobs"]} == {24}
        assert {job["input_reference"] for job in document["jobs"]} == {"studio.png"}
        assert (
            len({(job["metadata"]["product"], job["metadata"]["style"], job["take"]) for job in document["jobs"]}) == 90
        )
