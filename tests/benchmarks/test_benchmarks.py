"""The benchmarks' small cases, for correctness: what they print of it is a figure only if the videos are right."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.benchmarks import machine, table
from tests.benchmarks.cases import CASES, DRAMATIQ, FLOOR, LISTENING, OURS, PEERS
from tests.benchmarks.contest import PeerError, Result, run
from tests.benchmarks.serving import Serving
from tests.benchmarks.studio import Options, Studio, content, prompt_of
from tests.servers.rabbitmq import RabbitMQ

TINY = replace(CASES["failures"], videos=20, concurrency=4, latency=0.05, poll=0.02)
LARGE = replace(CASES["large"], videos=2, concurrency=2)
BATCHES = replace(CASES["batches"], videos=9, batches=3, latency=0.0)


@pytest.fixture(scope="module")
def server() -> Iterator[Serving]:
    with Serving() as server:
        yield server


@pytest.mark.integration
@pytest.mark.parametrize("peer", [peer for peer in PEERS if peer != DRAMATIQ])
def test_a_peer_makes_every_video_that_does_not_fail_and_pays_once(peer: str, server: Serving, tmp_path: Path) -> None:
    result = run(TINY, peer, server, tmp_path)
    assert result.paid_again == 0
    assert result.requests["create"] == 22  # each tenth is refused
    assert result.requests["content"] == 19  # each twentieth fails
    assert result.max_in_flight <= TINY.concurrency
    assert result.wall >= TINY.ideal


@pytest.mark.integration
def test_a_group_makes_every_video(server: Serving, rabbitmq: RabbitMQ, tmp_path: Path) -> None:
    result = run(TINY, DRAMATIQ, server, tmp_path, rabbitmq.url)
    assert result.requests["content"] == 19


@pytest.mark.integration
@pytest.mark.parametrize("case", [LARGE, BATCHES], ids=["large", "batches"])
@pytest.mark.parametrize("peer", [FLOOR, OURS, LISTENING])
def test_files_are_right_and_nothing_is_left_behind(peer: str, case, server: Serving, tmp_path: Path) -> None:
    result = run(case, peer, server, tmp_path)
    assert not any(result.told.get(f"{what}_left") for what in ("tasks", "threads")), result.told
    assert result.requests["content"] == case.videos


@pytest.mark.integration
def test_a_peer_that_makes_too_little_has_no_figure(server: Serving, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("tests.benchmarks.contest.content", lambda *_: b"another file")
    with pytest.raises(PeerError, match="not as they should be"):
        run(BATCHES, FLOOR, server, tmp_path)


def test_a_video_is_there_after_its_latency_and_not_before() -> None:
    early, late = Studio(Options(latency=60)), Studio(Options(latency=0))
    for studio in (early, late):
        studio.make("a lake")
    name = f"video_{1:032x}"
    assert (early.fetch(name), late.fetch(name)) == (None, "a lake")
    assert b'"completed"' not in (early.look(name) or b"")
    assert b'"completed"' in (late.look(name) or b"")


def test_a_file_says_whose_it_is() -> None:
    for size in (1000, 10_000, 100_000):
        file = content("a lake", size)
        assert (len(file), prompt_of(file)) == (size, "a lake")


def test_the_table_has_medians_ranges_and_ratios_of_one_turn() -> None:
    def took(wall: float) -> Result:
        return Result(wall, 1.0, 50.0, {"create": 20}, 4, 0, {})

    results = {FLOOR: [took(1), took(2), took(3)], OURS: [took(2), took(2), took(3)]}
    case = replace(TINY, failing_every=0, refused_every=0, latency=0.2)
    row = table.rows(case, results)[1]
    assert row[:3] == (OURS, "2.000 x ideal (2.000-3.000)", "1.00 (1.00-2.00)")
    assert table.markdown(case, results).count("\n") == 3


def test_the_machine_is_described(tmp_path: Path) -> None:
    assert len(machine.described(tmp_path)) == 4
