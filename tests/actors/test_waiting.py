"""Who waits for a batch is told once, in a thread where he may do as he likes."""

import threading

import pytest

from actors.errors import BatchReleased, ServiceClosed, StorageError
from actors.service.waiting import Waiting

PATIENCE = 20


@pytest.fixture
def waiting():
    waiting = Waiting()
    yield waiting
    waiting.close(BatchReleased)


def test_everybody_who_waits_for_a_batch_is_told(waiting):
    one, other = waiting.add(["a", "b"])
    (again,) = waiting.add(["a"])
    waiting.answer(waiting.take("a"), "the batch")
    assert (one.result(PATIENCE), again.result(PATIENCE)) == ("the batch", "the batch")
    assert not other.done()
    waiting.answer(waiting.take("b"), StorageError("away"))
    with pytest.raises(StorageError, match="away"):
        other.result(PATIENCE)


def test_a_callback_may_wait_for_other_batches_and_close_everything(waiting):
    first, second = waiting.add(["a", "b"])
    threads = []

    def then(_):
        threads.append(threading.current_thread())
        waiting.close(BatchReleased)

    first.add_done_callback(then)
    waiting.answer(waiting.take("a"), "the batch")
    with pytest.raises(BatchReleased):
        second.result(PATIENCE)
    assert threads[0] is not threading.current_thread()


def test_what_nobody_was_given_is_forgotten(waiting):
    kept, dropped = waiting.add(["a", "a"])
    waiting.drop([dropped])
    assert waiting.take("a") == [kept]
    assert waiting.take("a") == []


def test_what_somebody_took_meanwhile_is_forgotten_all_the_same(waiting):
    kept, dropped = waiting.add(["a", "b"])
    waiting.take("b")
    waiting.drop([dropped])
    assert waiting.take("a") == [kept]
    assert waiting._futures == {}


def test_closing_without_anybody_waiting_is_nothing():
    waiting = Waiting()
    waiting.close(BatchReleased)
    waiting.answer([], "nobody")


def test_after_its_end_nobody_is_let_wait_for_ever(waiting):
    (early,) = waiting.add(["a"])
    taken = waiting.take("a")
    waiting.close(BatchReleased)
    with pytest.raises(ServiceClosed):
        waiting.add(["b"])
    waiting.answer(taken, "the batch")
    assert early.result(0) == "the batch"
