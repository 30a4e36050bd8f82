"""A process dies before and after each crash point of each operation, another one during its recovery: nothing is lost.

All kills of an operation happen side by side, each with a batch of its own; then each has its verdict here.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.integration.crash_markers import marked_places
from tests.integration.crash_points import POINTS, SOMETIMES, STORED, Operation, kills
from tests.integration.dying import IN_A_BUCKET, Dying
from tests.integration.dying_commands import DyingOfCommands, DyingPublisher
from tests.integration.support import Drivers
from tests.provider.client import Provider
from tests.provider.options import Options
from tests.servers.rabbitmq import RabbitMQ
from tests.servers.s3 import s3_server

pytestmark = pytest.mark.integration

Case = tuple[str, int]
COMMANDS = [each for each in Operation if each.startswith("command")]
CASES = [(operation, label, hit) for operation in Operation for label, hit in kills(operation)]


@dataclass
class Outcome:
    """What came out of an operation's kills."""

    passed: set[str]
    """By an undisturbed process."""
    unnamed: list[str]
    """Effects that no point names."""
    wrong: dict[Case, str]


@pytest.fixture(scope="module")
def outcomes(
    provider_process: Provider, drivers_process: Drivers, rabbitmq: RabbitMQ, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[Operation], Outcome]]:
    """Have an operation's processes killed, once."""
    found: dict[Operation, Outcome] = {}

    def of(operation: Operation) -> Outcome:
        if operation in found:
            return found[operation]
        provider_process.reset()
        provider_process.options(**asdict(Options()))
        if operation in COMMANDS:
            found.update(_of_commands(provider_process, drivers_process, rabbitmq, tmp_path_factory.mktemp("commands")))
        else:
            with ExitStack() as stack:
                if operation in IN_A_BUCKET:
                    _lead_to_a_bucket(stack, tmp_path_factory.mktemp("s3"))
                found[operation] = _of(operation, provider_process, drivers_process, rabbitmq, tmp_path_factory)
        return found[operation]

    yield of
    drivers_process.reset()


def _lead_to_a_bucket(stack: ExitStack, folder: Path) -> None:
    """Have the environment lead to a bucket; the drivers' processes are told of it."""
    server = stack.enter_context(s3_server("rclone", folder))
    environment = stack.enter_context(pytest.MonkeyPatch.context())
    environment.delenv("AWS_CA_BUNDLE", raising=False)
    for name, value in server.settings("dying").items():
        environment.setenv(name, value)


def _of(
    operation: Operation, provider: Provider, drivers: Drivers, rabbitmq: RabbitMQ, folders: pytest.TempPathFactory
) -> Outcome:
    def make() -> Dying | DyingPublisher:
        folder = folders.mktemp("dying")
        if operation is Operation.PUBLISH:
            return DyingPublisher(provider, drivers, folder, rabbitmq.fresh_url())
        return Dying(operation, provider, drivers, folder)

    said, dying = make().watch("watched"), make()
    cases = {f"b{number}": case for number, case in enumerate(kills(operation))}
    dying.kill(cases)
    return Outcome(set(said["passed"]), said["unnamed"], {cases[i]: text for i, text in dying.wrong.items()})


def _of_commands(provider: Provider, drivers: Drivers, rabbitmq: RabbitMQ, folder: Path) -> dict[Operation, Outcome]:
    """Those of all sorts, side by side: a consumer takes its time to connect."""

    def make(stack: ExitStack, ids: Callable[[Operation], list[str]]) -> dict[Operation, DyingOfCommands]:
        dying = {}
        for operation in COMMANDS:
            here = folder / f"{operation}-{len(ids(operation))}".replace(" ", "-")
            here.mkdir()
            each = DyingOfCommands(operation, provider, drivers, here, rabbitmq.fresh_url())
            stack.callback(each.close)
            each.prepare(ids(operation))
            dying[operation] = each
        return dying

    with ExitStack() as stack:
        watched = make(stack, lambda _: ["watched"])
        children = {operation: each.start("watched", watch=True) for operation, each in watched.items()}
        said = {operation: drivers.end(child)["said"] for operation, child in children.items()}
        dying = make(stack, lambda operation: [f"b{number}" for number in range(len(kills(operation)))])
        for number in range(max(len(kills(operation)) for operation in COMMANDS)):
            running: dict[Operation, int] = {}
            for operation, each in dying.items():
                if number < len(kills(operation)):
                    label, hit = kills(operation)[number]
                    running[operation] = each.start(f"b{number}", label=label, hit=hit)
            for operation, child in running.items():
                dying[operation].end(f"b{number}", child)
        outcomes = {}
        for operation, each in dying.items():
            each.finish()
            wrong = {kills(operation)[int(i.removeprefix("b"))]: text for i, text in each.wrong.items()}
            outcomes[operation] = Outcome(set(said[operation]["passed"]), said[operation]["unnamed"], wrong)
    return outcomes


@pytest.mark.parametrize(("operation", "label", "hit"), CASES)
def test_a_kill_costs_time_not_work(
    operation: Operation, label: str, hit: int, outcomes: Callable[[Operation], Outcome]
) -> None:
    assert outcomes(operation).wrong.get((label, hit)) is None


@pytest.mark.parametrize("operation", Operation)
def test_what_an_operation_passes_is_killed(operation: Operation, outcomes: Callable[[Operation], Outcome]) -> None:
    outcome = outcomes(operation)
    names = SOMETIMES.get(operation, frozenset())
    if operation in (Operation.STORE, Operation.PAY):
        names |= STORED
    spared = {f"{side} {name}" for side in ("before", "after") for name in names}
    assert outcome.passed - {label for label, _ in kills(operation)} - spared == set()


@pytest.mark.parametrize("operation", Operation)
def test_every_effect_of_an_operation_has_a_name(
    operation: Operation, outcomes: Callable[[Operation], Outcome]
) -> None:
    assert outcomes(operation).unnamed == []


def test_every_crash_point_is_passed_by_an_operation() -> None:
    assert [name for name, point in POINTS.items() if not point.operations] == []


def test_no_two_crash_points_are_the_same() -> None:
    places: dict[Any, Any] = {}
    for point in POINTS.values():
        places.setdefault((point.kind, point.place, point.counts), []).append(point.name)
    assert [names for names in places.values() if len(names) > 1] == []


def _marked(root: Path, source: str) -> dict[str, str]:
    for package in ("actors", "storage"):
        (root / package).mkdir(exist_ok=True)
    (root / "actors" / "some.py").write_text(source)
    return marked_places(root)


def test_a_marker_means_the_outermost_function_around_it(tmp_path: Path) -> None:
    source = """
class Sender:
    class Inner:
        def send(self) -> None:  # crash point: sent
            def again() -> None:
                self.put()  # crash point: put, put again

        async def wait(self) -> None:
            # crash point: waited
            await self.done()
"""
    send, wait = "actors/some.py:Sender.Inner.send", "actors/some.py:Sender.Inner.wait"
    assert _marked(tmp_path, source) == {"sent": send, "put": send, "put again": send, "waited": wait}


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("x = 1  # crash point: lost\n", "actors/some.py:1 marks a crash point outside any function"),
        (
            "def f(): ...  # crash point: a\ndef g(): ...  # crash point: a\n",
            "actors/some.py:2 marks the crash point a, and so does actors/some.py:f",
        ),
    ],
)
def test_a_marker_that_means_nothing_or_two_things_is_an_error(tmp_path: Path, source: str, error: str) -> None:
    with pytest.raises(ValueError, match=error):
        _marked(tmp_path, source)
