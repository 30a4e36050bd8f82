"""Bodies: the bodies of videos with files are built before their intents, one at a time and few of them."""

import asyncio

from actors.messages import PlaceFree
from actors.sora.requests import Body
from actors.video.tools import Bodies, has_files
from tests.builders import a_job

LARGE, SMALL = 33 << 20, 1000
STORED = {"digest": "d"}


class Supervisor:
    """Has one job with a picture, and starts it when it may."""

    def __init__(self, house, number):
        self.house, self.name, self.started, self.told = house, f"submission-{number}", False, []
        self.job = a_job(number, f"batch{number}", reference=STORED)

    def tell(self, message):
        self.told.append(message)
        self.start()

    def start(self):
        if not self.started and self.house.bodies.ready(self.job, self):
            self.started = True
            self.house.bodies.starts(self, self.name)


class House:
    def __init__(self, size, count=3):
        self.size, self.built, self.building, self.most = size, [], 0, 0
        self.bodies = Bodies(self.build)
        self.supervisors = [Supervisor(self, number) for number in range(1, count + 1)]

    async def build(self, job):
        self.building += 1
        self.most = max(self.most, self.building)
        await asyncio.sleep(0)
        self.building -= 1
        self.built.append(job.batch_id)
        if self.size is None:
            raise LookupError("no such file")
        return Body(bytes(self.size), "text/plain")

    @property
    def started(self):
        return [each.job.batch_id for each in self.supervisors if each.started]

    async def settle(self):
        for _ in range(20):
            await asyncio.sleep(0)


def run(size, steps, count=3):
    async def whole():
        house = House(size, count)
        for supervisor in house.supervisors:
            supervisor.start()
        await house.settle()
        await steps(house)
        return house

    return asyncio.run(whole())


async def nothing(_house):
    """What was asked for is all."""


def test_a_video_without_stored_files_is_ready_at_once():
    bodies = Bodies(nothing)
    for job in (a_job(), a_job(reference={"file_id": "file-1"})):
        assert not has_files(job)
        assert bodies.ready(job, "supervisor")
    assert has_files(a_job(options={"files": {"mask": STORED, "audio": {"file_id": "file-1"}}}))


def test_small_bodies_are_built_one_by_one_without_waiting_for_their_posts():
    house = run(SMALL, nothing)
    assert house.started == ["batch1", "batch2", "batch3"]
    assert house.most == 1


def test_a_large_body_is_built_when_the_one_before_has_left():
    async def steps(house):
        assert house.started == house.built == ["batch1"]
        assert len(house.bodies.of("submission-1").content) == LARGE
        for number in (1, 2, 3):
            house.bodies.left(f"submission-{number}")
            house.bodies.left(f"submission-{number}")
            await house.settle()
            assert house.started == ["batch1", "batch2", "batch3"][: number + 1]
            assert house.bodies.of(f"submission-{number}") is None

    run(LARGE, steps)


def test_what_a_supervisor_that_stops_had_asked_for_makes_room_for_others():
    async def steps(house):
        first, second, third = house.supervisors
        house.bodies.drop(second)
        house.bodies.left(first.name)
        await house.settle()
        assert house.started == ["batch1", "batch3"]
        assert house.built == ["batch1", "batch3"]
        assert second.told == []
        house.bodies.left(third.name)
        second.start()
        await house.settle()
        assert house.started == ["batch1", "batch2", "batch3"]

    run(LARGE, steps)


def test_a_body_that_was_built_in_vain_is_dropped():
    async def steps(house):
        (first,) = house.supervisors
        house.bodies.drop(first)
        other = a_job(2, "batch1", reference=STORED)
        assert not house.bodies.ready(first.job, first)
        assert not house.bodies.ready(other, first)  # while the first one is still built
        first.started = True  # it asks by itself from here on
        await house.settle()
        assert house.built == ["batch1"] * 3
        assert first.told == [PlaceFree()] * 2
        assert house.bodies.ready(other, first)

    run(SMALL, steps, count=1)


def test_a_job_whose_body_can_not_be_built_is_left_to_its_worker():
    house = run(None, nothing)
    assert house.started == ["batch1", "batch2", "batch3"]
    assert [house.bodies.of(each.name) for each in house.supervisors] == [None] * 3
