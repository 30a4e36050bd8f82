"""The promises hold in whatever order things happen; `python -m tests.model.promises` searches for longer."""

import pytest

from storage.states import SubmissionState
from tests.model.promises import search
from tests.model.world import LEASE, World, open_database


@pytest.fixture
def database(tmp_path):
    database = open_database(tmp_path / "model.db")
    yield database
    database.close()


def test_no_order_of_crashes_takeovers_and_lost_answers_breaks_a_promise(database):
    search(database, examples=50, steps=40, derandomize=True)


@pytest.fixture
def world(database):
    with database.connection():
        world = World(database)
        yield world
        world.close()


@pytest.mark.parametrize("steps", range(1, 21))
def test_an_owner_that_is_not_sure_of_its_lease_records_one_intent_at_the_most(world, steps):
    """It was suspended for longer than that, between any two of its steps."""
    process = world.start("one")
    world.pass_time(1.0)
    world.create("batch1", ["a boat"], 1)
    process.fuse = (steps, process.suspend)
    world.pass_time(2.0)
    world.pass_time(LEASE)
    process.suspended, process.writes_first = False, True
    world.run()
    states = [row.state for row in world.submissions().values()]
    assert states.count(SubmissionState.NOT_SENT) <= 1
    assert not world.broken


@pytest.mark.parametrize("steps", range(1, 31))
def test_a_zombie_whose_batch_was_taken_over_writes_nothing(world, steps):
    zombie = world.start("one")
    world.pass_time(1.0)
    world.create("batch1", ["a boat", "a lake"], 1)
    zombie.fuse = (steps, zombie.suspend)
    world.pass_time(2.0)
    for post in world.provider.posts:
        if post.sent and not post.answer.done():
            world.provider.arrive(post)
            world.provider.reply(post, 200)
    zombie.suspend()
    world.start("two")
    world.pass_time(LEASE + 2.0)
    zombie.suspended = False
    world.pass_time(1.0)
    assert not world.broken


def test_a_post_that_takes_long_to_connect_does_not_leave(world):
    world.provider.connects = False
    world.create("batch1", ["a boat"], 1)
    world.start("one")
    world.pass_time(4.0)
    (post,) = world.provider.posts
    post.connected.set_result(None)
    world.run()
    assert not post.sent
    assert not world.broken


def test_a_video_that_is_listed_under_other_words_is_not_absent(world):
    world.create("batch1", ["a boat"], 1)
    world.start("one")
    world.run()
    (post,) = world.provider.posts
    world.provider.listing = "with other spaces"
    world.provider.arrive(post)
    world.provider.cut(post)
    world.pass_time(30.0)
    assert world.provider.posts == [post]
    assert not world.broken


@pytest.mark.parametrize("seconds", [number / 4 for number in range(1, 18)])
def test_a_post_does_not_leave_when_the_lease_could_not_be_renewed(world, seconds):
    world.create("batch1", ["a boat", "a lake"], 1)
    process = world.start("one")
    world.pass_time(seconds)
    world.provider.connects = False
    world.provider.reply(world.provider.posts[0], 400)
    world.run()
    process.recorder.away = True
    world.pass_time(1.7)
    world.provider.posts[1].connected.set_result(None)
    world.run()
    assert not world.broken


def test_an_owner_that_forgets_what_is_live_pays_nothing_twice(world):
    world.create("batch1", ["a boat"], 1)
    first = world.start("one")
    world.run()
    first.kill()
    world.start("one").forgets_live = True
    world.pass_time(3.0)
    assert not world.broken
