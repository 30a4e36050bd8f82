"""Pykka actors on the I/O loop."""

import asyncio
import gc
import logging
import subprocess
import sys
import threading
import time
from concurrent.futures import Future
from contextlib import suppress

import pykka
import pytest

from actors.coalescer import Coalescer
from actors.errors import ServiceClosed
from actors.loop import IOLoop, LoopActor, tell

PATIENCE = 10


@pytest.fixture
def io():
    io = IOLoop()
    yield io
    io.close()


class Recording(LoopActor):
    """Does what it is told, and remembers what happened to it."""

    def __init__(self, io, log=None, failed=None):
        super().__init__(io)
        self.log = [] if log is None else log
        self.failed = failed or threading.Event()

    def on_receive(self, message):
        if callable(message):
            return message(self)
        self.log.append(message)
        return ("got", message)

    def on_stop(self):
        self.log.append("stopped")

    def on_failure(self, kind, error, traceback):
        self.log.append((kind, str(error)))
        self.failed.set()


@pytest.fixture
def log():
    return []


@pytest.fixture
def failed():
    return threading.Event()


@pytest.fixture
def ref(io, log, failed):
    ref = Recording.start(io, log, failed)
    yield ref
    if ref.is_alive():
        ref.stop(timeout=PATIENCE)


@pytest.fixture
def quiet(caplog):
    """What Pykka logs of failures that a test makes on purpose."""
    with caplog.at_level(logging.CRITICAL, "pykka"):
        yield


def boom(_actor):
    raise ValueError("boom")


def test_messages_are_handled_in_the_order_in_which_they_were_told(ref, log):
    for number in range(1000):
        ref.tell(number)
    ref.ask("last", timeout=PATIENCE)
    assert log == [*range(1000), "last"]


def test_messages_of_several_threads_are_all_handled_one_after_the_other(ref, log):
    def send(sender):
        for number in range(300):
            ref.tell((sender, number))

    threads = [threading.Thread(target=send, args=(sender,)) for sender in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ref.ask("last", timeout=PATIENCE)
    assert len(log) == 1201
    for sender in range(4):
        assert [number for who, number in log[:-1] if who == sender] == list(range(300))


def test_a_question_is_answered(ref):
    assert ref.ask("x", timeout=PATIENCE) == ("got", "x")


def test_every_message_is_handled_on_the_loop(io, ref):
    def where(_actor):
        return asyncio.get_running_loop(), threading.current_thread().name

    assert ref.ask(where, timeout=PATIENCE) == (io.loop, "sora-io")


def test_an_actor_that_tells_itself_does_not_starve_the_others(io, ref, log):
    busy = Recording.start(io)

    def again(actor):
        if not actor.log:
            actor.actor_ref.tell(again)

    busy.tell(again)
    assert ref.ask("my turn", timeout=PATIENCE) == ("got", "my turn")
    busy.tell("enough")
    busy.stop(timeout=PATIENCE)


def test_a_failing_tell_stops_the_actor_and_calls_on_failure(ref, log, failed, quiet):
    ref.tell(boom)
    assert failed.wait(PATIENCE)
    assert log == [(ValueError, "boom")]
    assert ref.actor_stopped.wait(PATIENCE)


def test_a_failing_ask_is_answered_and_stops_the_actor(ref, log, failed, quiet):
    with pytest.raises(ValueError, match="boom"):
        ref.ask(boom, timeout=PATIENCE)
    assert ref.actor_stopped.wait(PATIENCE)
    assert failed.wait(PATIENCE)
    assert log == [(ValueError, "boom")]


def test_a_failing_on_failure_hurts_nobody_else(io, ref, quiet):
    class Clumsy(Recording):
        def on_failure(self, *_):
            raise RuntimeError("again")

    clumsy = Clumsy.start(io)
    clumsy.tell(boom)
    assert clumsy.actor_stopped.wait(PATIENCE)
    assert ref.ask("alive", timeout=PATIENCE) == ("got", "alive")


def test_what_was_told_before_a_failure_and_not_handled_is_dropped(ref, log, failed, quiet):
    def fail_with_mail(me):
        me.actor_ref.tell("never read")
        boom(me)

    ref.tell(fail_with_mail)
    assert failed.wait(PATIENCE)
    assert ref.actor_stopped.wait(PATIENCE)
    assert "never read" not in log


def test_a_question_that_nobody_will_answer_is_answered_so(ref, quiet):
    answers = []

    def stop_with_mail(me):
        me.stop()
        answers.append(me.actor_ref.ask("too late", block=False))

    ref.ask(stop_with_mail, timeout=PATIENCE)
    with pytest.raises(pykka.ActorDeadError):
        answers[0].get(timeout=PATIENCE)


def test_stopping_handles_what_was_told_before_and_calls_on_stop(ref, log):
    for number in range(10):
        ref.tell(number)
    ref.stop(timeout=PATIENCE)
    assert log == [*range(10), "stopped"]


def test_an_actor_that_stops_itself_handles_nothing_more(ref, log):
    def stop(me):
        me.stop()
        me.actor_ref.tell("after")

    ref.tell(stop)
    assert ref.actor_stopped.wait(PATIENCE)
    assert log == ["stopped"]


def test_telling_an_actor_that_has_ended_is_nothing(ref):
    ref.stop(timeout=PATIENCE)
    tell(ref, "x")
    with pytest.raises(pykka.ActorDeadError):
        ref.tell("x")


def test_the_end_of_work_is_told_with_its_task(io, ref):
    ended = threading.Event()
    results = []

    def done(task):
        results.append(task.result())
        ended.set()

    async def work():
        return 7

    ref.ask(lambda me: me.begin(work(), done) and None, timeout=PATIENCE)
    assert ended.wait(PATIENCE)
    assert results == [7]


# --- the loop


def test_a_coroutine_is_run_and_answered(io):
    async def work():
        return threading.current_thread().name

    assert io.submit(work()).result(PATIENCE) == "sora-io"


def test_what_blocks_runs_beside_the_loop(io):
    blocked, release = threading.Event(), threading.Event()

    def block():
        blocked.set()
        return release.wait(PATIENCE)

    answer = io.submit(io.offload(block))
    assert blocked.wait(PATIENCE)
    alive = threading.Event()
    io.call(alive.set)
    assert alive.wait(PATIENCE)
    release.set()
    assert answer.result(PATIENCE) is True


def test_closing_ends_every_task(io):
    begun, ended = threading.Event(), threading.Event()

    async def forever():
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    io.submit(forever())
    assert begun.wait(PATIENCE)
    io.close()
    assert ended.is_set()
    assert io.loop.is_closed()


def test_closing_twice_is_closing_once_and_calls_after_it_are_nothing(io):
    io.close()
    io.close()
    io.call(pytest.fail, "called after the end")


def test_what_comes_to_an_ended_loop_is_told_that_the_service_is_closed(io):
    io.close()
    with pytest.raises(ServiceClosed):
        io.submit(asyncio.sleep(0))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of what is left
@pytest.mark.parametrize("blocks", [False, True], ids=["a task that does not end", "a call that blocks the loop"])
def test_closing_a_loop_that_does_not_end_leaves_it(io, blocks):
    begun, go_on = threading.Event(), threading.Event()

    async def stubborn():
        begun.set()
        if blocks:
            go_on.wait(PATIENCE)
        while not go_on.is_set():
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(0)

    io.submit(stubborn())
    assert begun.wait(PATIENCE)
    io.close(timeout=0.2)
    go_on.set()
    io._thread.join(PATIENCE)
    io.close()
    assert io.loop.is_closed()
    gc.collect()


def test_calls_from_another_thread_come_in_their_order(io):
    called, done = [], threading.Event()
    for number in range(1000):
        io.call(called.append, number)
    io.call(done.set)
    assert done.wait(PATIENCE)
    assert called == list(range(1000))


def test_what_another_thread_answers_is_waited_for_on_the_loop(io):
    answer = Future()
    waiting = io.submit(io.outcome(answer))
    answer.set_result(7)
    assert waiting.result(PATIENCE) == 7


def test_an_error_of_another_thread_is_raised_on_the_loop(io):
    answer = Future()
    waiting = io.submit(io.outcome(answer))
    answer.set_exception(ValueError("boom"))
    with pytest.raises(ValueError, match="boom"):
        waiting.result(PATIENCE)


def test_giving_up_on_an_answer_does_not_take_it_back(io):
    answer = Future()

    async def give_up():
        task = asyncio.ensure_future(io.outcome(answer))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])

    io.submit(give_up()).result(PATIENCE)
    assert not answer.cancelled()
    answer.set_result("recorded all the same")


# --- work that is done in groups


class Desk:
    """Works on groups, each when a test lets it."""

    def __init__(self):
        self.groups, self.begun, self.may_go_on = [], asyncio.Event(), asyncio.Event()

    async def work(self, group):
        self.groups.append(group)
        self.begun.set()
        await self.may_go_on.wait()
        return [ValueError(item) if item == "bad" else f"{item}!" for item in group]


async def several(desk, *items):
    gathered = Coalescer(desk.work)
    tasks = [asyncio.ensure_future(gathered.do(item)) for item in items[:1]]
    await desk.begun.wait()
    tasks += [asyncio.ensure_future(gathered.do(item)) for item in items[1:]]
    await asyncio.sleep(0)
    return gathered, tasks


def test_what_comes_while_a_group_is_worked_on_is_the_next_group():
    async def scenario():
        desk = Desk()
        _, tasks = await several(desk, "a", "b", "c")
        desk.may_go_on.set()
        assert await asyncio.gather(*tasks) == ["a!", "b!", "c!"]
        assert desk.groups == [["a"], ["b", "c"]]

    asyncio.run(scenario())


def test_as_many_groups_are_worked_on_as_may_be():
    async def scenario():
        desk = Desk()
        gathered = Coalescer(desk.work, groups=2)
        tasks = []
        for item in ("a", "b", "c", "d"):
            tasks.append(asyncio.ensure_future(gathered.do(item)))
            for _ in range(3):
                await asyncio.sleep(0)
        desk.may_go_on.set()
        assert await asyncio.gather(*tasks) == ["a!", "b!", "c!", "d!"]
        assert desk.groups == [["a"], ["b"], ["c", "d"]]
        assert await gathered.do("e") == "e!"

    asyncio.run(scenario())


def test_one_that_fails_spoils_no_other_of_its_group():
    async def scenario():
        desk = Desk()
        _, tasks = await several(desk, "a", "bad", "c")
        desk.may_go_on.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [str(result) for result in results] == ["a!", "bad", "c!"]

    asyncio.run(scenario())


def test_one_that_is_given_up_is_left_out():
    async def scenario():
        desk = Desk()
        _, (first, second, third) = await several(desk, "a", "b", "c")
        second.cancel()
        await asyncio.sleep(0)
        desk.may_go_on.set()
        assert (await first, await third) == ("a!", "c!")
        assert desk.groups == [["a"], ["c"]]

    asyncio.run(scenario())


def test_one_that_is_given_up_while_it_is_worked_on_is_told_of():
    async def scenario():
        desk, unclaimed = Desk(), []
        gathered = Coalescer(desk.work, unclaimed=unclaimed.append)
        tasks = [asyncio.ensure_future(gathered.do("a")), asyncio.ensure_future(gathered.do("b"))]
        await desk.begun.wait()
        tasks[1].cancel()
        await asyncio.sleep(0)
        assert unclaimed == []
        desk.may_go_on.set()
        assert await tasks[0] == "a!"
        assert unclaimed == ["b"]

    asyncio.run(scenario())


def test_nobody_waits_behind_what_is_worked_on_alone():
    async def scenario():
        desk = Desk()
        gathered = Coalescer(desk.work)
        alone = asyncio.ensure_future(gathered.do_alone("large"))
        await desk.begun.wait()
        together = [asyncio.ensure_future(gathered.do(item)) for item in ("a", "b")]
        for _ in range(3):
            await asyncio.sleep(0)
        assert desk.groups == [["large"], ["a", "b"]]
        desk.may_go_on.set()
        assert await asyncio.gather(alone, *together) == ["large!", "a!", "b!"]
        with pytest.raises(ValueError, match="bad"):
            await gathered.do_alone("bad")

    asyncio.run(scenario())


def test_work_that_fails_as_a_whole_is_told_to_each_and_the_next_is_done():
    async def fail(_group):
        raise OSError("disk full")

    async def scenario():
        gathered = Coalescer(fail)
        for _ in range(2):
            with pytest.raises(OSError, match="disk full"):
                await gathered.do("a")

    asyncio.run(scenario())


FORGETFUL = """
import asyncio
from actors.loop import IOLoop, LoopActor

class Forever(LoopActor):
    def on_receive(self, message):
        self.begin(asyncio.Event().wait(), print)
        return "begun"

io = IOLoop()
ref = Forever.start(io)
print(ref.ask("go", timeout=10))
"""


def test_a_program_that_forgets_to_close_its_loop_ends_all_the_same():
    before = time.monotonic()
    done = subprocess.run([sys.executable, "-c", FORGETFUL], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "begun\n"), done.stderr
    assert time.monotonic() - before < 30


OUTLIVED = """
import asyncio, threading
from actors.loop import IOLoop

io = IOLoop()

async def work():
    await asyncio.get_running_loop().getaddrinfo("localhost", 1)
    return await io.offload(sum, [1, 2])

def outlive():
    threading.main_thread().join()
    print(io.submit(work()).result(30))

threading.Thread(target=outlive).start()
"""


def test_a_program_whose_main_thread_has_ended_goes_on_working():
    done = subprocess.run([sys.executable, "-c", OUTLIVED], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "3\n"), done.stderr


def test_the_error_of_what_blocks_is_raised_on_the_loop(io):
    with pytest.raises(ZeroDivisionError):
        io.submit(io.offload(divmod, 1, 0)).result(PATIENCE)
