"""Events come twice, too early and not at all; what is given is in order, each once."""

from hypothesis import given
from hypothesis import strategies as st

from actors.batch.events import Event
from actors.rabbitmq.client.stream import InOrder


def event(sequence: int) -> Event:
    number = f"{sequence:010d}"
    return Event(
        id=f"nature:{number}", source="/s", type="sora-batch.job.progressed.v1", subject="nature-01",
        time="2026-11-24T00:00:00Z", dataschema="urn:x", sequence=number, data={},
    )  # fmt: skip


def taken(order: InOrder) -> list[int]:
    return [int(each.sequence) for each in iter(order.take, None)]


@given(st.permutations(range(1, 9)), st.lists(st.integers(1, 8), max_size=8), st.integers(1, 8))
def test_every_event_is_given_once_and_in_order(arriving: list[int], again: list[int], first: int) -> None:
    order = InOrder(first)
    given_out: list[int] = []
    for sequence in [*arriving, *again]:
        order.add(event(sequence))
        given_out += taken(order)
    assert given_out == list(range(first, 9))
    assert order.missing is None


def test_what_comes_before_the_beginning_is_known_is_kept_for_it() -> None:
    order = InOrder(None)
    for sequence in (3, 4, 5):
        order.add(event(sequence))
    assert taken(order) == []
    assert order.missing is None
    order.start(4)
    order.start(9)  # a second report changes nothing
    assert taken(order) == [4, 5]


def test_a_gap_is_missing_until_it_is_filled() -> None:
    order = InOrder(1)
    order.add(event(4))
    assert order.missing == 3
    for sequence in (1, 2, 3):
        order.add(event(sequence))
    assert taken(order) == [1, 2, 3, 4]


def test_what_does_not_exist_any_more_is_passed_over() -> None:
    order = InOrder(1)
    order.pass_over(3)
    assert order.next == 4
    order.add(event(7))
    order.pass_over(9)  # not over what is here
    assert taken(order) == [7]
