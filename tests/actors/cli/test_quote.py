"""`quote`, and the line of `run` that says what it would cost."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from actors.service import BatchService
from actors.simulator import Simulator

Call = Callable[..., Any]
TABLE = "sora-2: {output_cost_per_second: 0.10, source: 'https://p', as_of: 2026-11-29}\n"
SUM = "at most 2.50 USD for 2 videos (sora-2, https://p, as of 2026-11-29)"
NATURE = """\
defaults: {model: sora-2}
videos:
  - {prompt: A sunset over the ocean, duration: 10}
  - {prompt: A mountain landscape, duration: 15}
"""


@pytest.fixture
def nature(home: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (home / "prices.yaml").write_text(TABLE)
    (home / "nature.yaml").write_text(NATURE)
    monkeypatch.setenv("SORA_PRICES", "prices.yaml")
    return "nature.yaml"


def test_a_quote_as_text(call: Call, home: Path, nature: str) -> None:
    before = sorted(home.iterdir())
    result = call("quote", nature)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [
        "#  video                    at most   for",
        "1  A sunset over the ocean  1.00 USD  10 s, sora-2",
        "2  A mountain landscape     1.50 USD  15 s, sora-2",
        "",
        SUM,
    ]
    assert sorted(home.iterdir()) == before  # no database


def test_a_quote_as_json_is_the_librarys(call: Call, nature: str) -> None:
    result = call(
        "quote", "-", "--json", "--model", "sora-2", "--duration", "8", "--takes", "2", stdin=b"A sea\nA sky\n"
    )
    document = json.loads(result.stdout)
    assert document["cost"] == [{"currency": "USD", "estimated_micros": 3_200_000, "videos": 4}]
    with BatchService() as service:
        request = {"videos": [{"prompt": p, "model": "sora-2", "duration": 8, "takes": 2} for p in ("A sea", "A sky")]}
        assert service.quote(request).model_dump(mode="json") == document


def test_what_is_unknown_is_said(call: Call, nature: str) -> None:
    result = call("quote", "-p", "Sea", "--model", "sora-2")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[1].split() == ["1", "Sea", "unknown", "sora-2"]
    assert (
        "the price of 1 video is unknown: sora-2 is priced by the second, and the video has no duration"
        in result.stdout
    )


def test_a_wrong_file_of_prices_is_one_sentence(call: Call, home: Path, nature: str, server: Simulator) -> None:
    (home / "prices.yaml").write_text("sora-2: {output_cost_per_second: -1}\n")
    for command in ("quote", "run"):
        result = call(command, nature)
        assert result.exit_code == 2
        assert result.stderr == (
            "sora-batch: SORA_PRICES='prices.yaml': sora-2.output_cost_per_second: must be a price from 0 to 1000000 (got -1)\n"
        )
    assert server.creates == 0
    assert json.loads(call("list", "--json").stdout) == []


def test_an_invalid_file_is_named_with_its_line(call: Call, home: Path, nature: str) -> None:
    (home / nature).write_text("videos:\n  - {prompt: Sea, duration: -1}\n")
    result = call("quote", nature)
    assert result.exit_code == 2
    assert "nature.yaml" in result.stderr
    assert "line 2" in result.stderr


def test_run_says_it_before_anything_is_sent(call: Call, nature: str, server: Simulator) -> None:
    lines = call("run", nature, "--id", "nature").stderr.splitlines()
    assert lines[0].startswith("sora-batch: batch nature: 2 videos")
    assert lines[1] == f"sora-batch: {SUM}"
    for option in ("--quiet", "--json"):
        assert "at most" not in call("run", nature, option).stderr


def test_run_says_nothing_of_prices_where_there_are_none(
    call: Call, nature: str, server: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SORA_PRICES")
    assert "price" not in call("run", nature).stderr


def test_a_service_with_a_wrong_file_of_prices_makes_nothing(home: Path, nature: str, server: Simulator) -> None:
    (home / "prices.yaml").write_text("[]")
    with BatchService() as service:
        batch = service.create_batch({"videos": [{"prompt": "Sea"}]})
        with pytest.raises(Exception, match="must be an object of prices by model"):
            service.process_batch(batch.id)
    assert server.creates == 0
