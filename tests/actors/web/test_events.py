"""Events over HTTP: pages and streams, resumed exactly, whoever records and whoever answers."""

import http.client
import json
import threading
from contextlib import closing
from datetime import timedelta
from time import monotonic

import pytest

from actors.batch.events import EventName, batch_event
from actors.errors import StorageError
from actors.service import BatchService
from actors.web.api import events
from tests.actors.web.conftest import request_of
from tests.integration.support import until

BATCHES = "/api/v1/batches"


class Stream:
    """A reader."""

    def __init__(self, client, path, **headers):
        self._connection = http.client.HTTPConnection(client.url.removeprefix("http://"), timeout=20)
        given = {name.replace("_", "-"): text for name, text in headers.items()}
        self._connection.request("GET", path, headers={"Accept": "text/event-stream", **given})
        self.response = self._connection.getresponse()

    def close(self):
        self._connection.close()

    def block(self):
        """The next lines up to an empty one; None at the end."""
        lines = []
        while line := self.response.readline():
            if line == b"\n":
                return lines
            lines.append(line.decode().rstrip("\n"))
        return None

    def event(self):
        """The next event: its id, and what it says; None at the end."""
        while (lines := self.block()) is not None:
            fields = dict(line.split(": ", 1) for line in lines if not line.startswith(":"))
            if "data" in fields:
                number = fields.get("id")
                return (None if number is None else int(number)), json.loads(fields["data"])
        return None

    def rest(self):
        return list(iter(self.event, None))


@pytest.fixture
def stream(client):
    opened = []

    def start(path=f"{BATCHES}/b/events", where=client, **headers):
        opened.append(Stream(where, path, **headers))
        return opened[-1]

    yield start
    for each in opened:
        each.close()


@pytest.fixture
def batch(service):
    return service.create_batch(request_of("one", id="b"))


def change(service, number):
    service.update_metadata("b", {"number": number})


def fill(service, count):
    """Many events, and quickly."""

    def write():
        batch = service._storage.batches.get("b")
        numbers = range(batch.sequence + 1, batch.sequence + count + 1)
        rows = [
            batch_event(EventName.BATCH_UPDATED, batch, each, service.now(), metadata={"n": each}) for each in numbers
        ]
        service._storage.journal.append(rows)
        service._storage.batches.update("b", sequence=numbers[-1])

    service._write(write)


def test_events_come_in_pages(client, service, batch):
    fill(service, 1499)
    first = client(f"{BATCHES}/b/events").json
    assert (len(first["data"]), first["next"]) == (1000, 1001)
    assert first["data"][0] == json.loads(service.recorded("b", 1, 1)[0].body)
    last = client(f"{BATCHES}/b/events?from_sequence=1001").json
    assert ([each["data"]["metadata"]["n"] for each in last["data"]], last["next"]) == (list(range(1001, 1501)), None)
    assert client(f"{BATCHES}/b/events?from_sequence=1501").json == {"data": [], "next": None}
    for query in ("from_sequence=0", "from_sequence=x", "from=1"):
        assert client(f"{BATCHES}/b/events?{query}").problem == (422, "invalid_request")
    assert client(f"{BATCHES}/none/events").problem == (404, "not_found")


def test_a_stream_tells_what_was_and_what_comes_until_the_end(client, service, batch, stream):
    change(service, 1)
    reader = stream()
    assert reader.response.getheader("Content-Type") == "text/event-stream; charset=utf-8"
    assert reader.response.getheader("Cache-Control") == "no-store"
    assert [reader.event()[0] for _ in range(2)] == [1, 2]
    change(service, 2)
    number, told = reader.event()
    assert (number, told["type"], told["data"]["metadata"]) == (3, "sora-batch.batch.updated.v1", {"number": 2})
    service.cancel_batch("b")
    assert [told["type"] for _, told in reader.rest()] == [
        "sora-batch.job.cancelled.v1", "sora-batch.batch.cancelled.v1",
    ]  # fmt: skip
    for again in (stream(Last_Event_ID="5"), stream(f"{BATCHES}/b/events?from_sequence=6")):
        assert (again.response.status, again.response.read()) == (204, b"")
    assert [number for number, _ in stream(Last_Event_ID="3").rest()] == [4, 5]
    assert [number for number, _ in stream(f"{BATCHES}/b/events?from_sequence=2", Last_Event_ID="4").rest()] == [5]
    assert [number for number, _ in stream().rest()] == [1, 2, 3, 4, 5]
    service.retry_batch("b")
    assert stream(Last_Event_ID="5").event()[1]["type"] == "sora-batch.batch.retried.v1"


def test_what_another_process_records_comes_within_half_a_second(client, service, batch, stream, settings):
    reader = stream(Last_Event_ID="1")
    reader.block()
    with BatchService(settings(), simulate=True) as other:
        change(other, 1)
        assert reader.event()[0] == 2
        change(service, 2)
        change(other, 3)
        change(service, 4)
        assert [reader.event()[1]["data"]["metadata"]["number"] for _ in range(3)] == [2, 3, 4]
        fill(other, 500)
        assert [reader.event()[0] for _ in range(500)] == list(range(6, 506))
        other.cancel_batch("b")
        assert [number for number, _ in reader.rest()] == [506, 507]


def test_it_comes_within_half_a_second(service, batch, stream, settings):
    reader, took = stream(Last_Event_ID="1"), []
    reader.block()
    with BatchService(settings(), simulate=True) as other:
        for number in range(4):
            change(other, number)
            began = monotonic()
            assert reader.event()[0] == number + 2
            took.append(monotonic() - began)
    assert min(took) < 0.5  # the machine may be busy with something else now and then


def test_a_database_that_goes_away_breaks_a_stream_off_and_it_is_resumed(client, service, batch, stream, monkeypatch):
    fill(service, 500)
    watcher, pages = _watcher(client), []
    page = watcher.page

    async def away(batch_id, after):
        pages.append(after)
        if len(pages) > 2:  # the first is read before the answer begins
            raise StorageError("away")
        return await page(batch_id, after)

    monkeypatch.setattr(watcher, "page", away)
    assert [number for number, _ in stream().rest()] == list(range(1, 201))
    monkeypatch.undo()
    assert stream(Last_Event_ID="200").event()[0] == 201


def test_a_stream_is_resumed_exactly_at_another_service(service, batch, stream, settings, listen):
    first, seen = listen(service), []
    writing = threading.Thread(target=lambda: [change(service, number) for number in range(60)])
    writing.start()
    with BatchService(settings(), simulate=True) as other:
        second = listen(other)
        while len(seen) < 61:
            where = (first, second)[len(seen) % 2]
            with closing(stream(where=where, Last_Event_ID=str(len(seen)))) as reader:
                seen += [reader.event()[0] for _ in range(min(7, 61 - len(seen)))]
    writing.join()
    assert seen == list(range(1, 62))


def test_what_cannot_be_resumed_is_said(client, service, batch, stream):
    for given in ("x", "-1", "1.5", "9" * 5000, "2", ""):
        assert client(f"{BATCHES}/b/events", Accept="text/event-stream", Last_Event_ID=given).problem[0] == 422, given
    assert client(f"{BATCHES}/none/events", Accept="text/event-stream").problem == (404, "not_found")
    service.cancel_batch("b")
    service.prune(timedelta(0))
    for pruned in (
        client(f"{BATCHES}/b/events"),
        client(f"{BATCHES}/b/events", Accept="text/event-stream"),
        client(f"{BATCHES}/b/events", Accept="text/event-stream", Last_Event_ID="1"),
    ):
        assert pruned.problem == (410, "not_found")
        assert "pruned" in pruned.json["detail"]
    assert stream(Last_Event_ID="3").response.status == 204


def test_who_follows_a_batch_learns_that_it_was_deleted(client, service, batch, stream):
    service.cancel_batch("b")
    service.delete_batch("b")
    assert client(f"{BATCHES}/b/events").problem == (410, "not_found")
    assert client(f"{BATCHES}/b/events", Accept="text/event-stream").problem == (410, "not_found")
    assert [told["type"] for _, told in stream(Last_Event_ID="3").rest()] == ["sora-batch.batch.deleted.v1"]
    assert stream(Last_Event_ID="4").response.status == 204


def test_the_stream_of_all_batches_tells_what_comes_from_anywhere(client, service, batch, stream, settings):
    with BatchService(settings(), simulate=True) as other:
        other.create_batch(request_of("p", id="old"))
        reader = stream("/api/v1/events")
        assert reader.response.status == 200
        reader.block()
        change(service, 1)
        other.create_batch(request_of("p", id="new"))
        other.cancel_batch("new")
        told = [reader.event() for _ in range(4)]
        assert {number for number, _ in told} == {None}
        assert [(each["data"]["batch_id"], each["sequence"]) for _, each in told] == [
            ("b", "0000000002"), ("new", "0000000001"), ("new", "0000000002"), ("new", "0000000003"),
        ]  # fmt: skip
        other.update_metadata("old", {"x": 1})
        service.update_metadata("old", {"x": 2})
        assert [reader.event()[1]["sequence"] for _ in range(2)] == ["0000000002", "0000000003"]


def test_what_others_do_to_a_batch_that_ended_long_ago_is_told_once(client, service, batch, stream, settings):
    with BatchService(settings(), simulate=True) as other:
        for name in ("b", "gone"):
            if name != "b":
                service.create_batch(request_of("p", id=name))
            service.cancel_batch(name)
        service._write(lambda: age(service._storage.database))
        change(service, 0)
        reader = stream("/api/v1/events")
        reader.block()
        change(other, 1)
        change(service, 2)
        change(other, 3)
        told = [reader.event()[1] for _ in range(3)]
        assert [each["data"]["metadata"]["number"] for each in told] == [1, 2, 3]
        other.delete_batch("gone")
        assert reader.event()[1]["type"] == "sora-batch.batch.deleted.v1"
        other.retry_batch("b")
        other.cancel_batch("b")
        names = [each["type"].removeprefix("sora-batch.") for _, each in next_of(reader, 4)]
        assert names == ["batch.retried.v1", "job.retried.v1", "job.cancelled.v1", "batch.cancelled.v1"]


def age(database):
    """Let an hour pass."""
    database.execute("UPDATE batches SET completed_at=completed_at-3600")
    database.execute("UPDATE journal SET created_at=created_at-3600")


def next_of(reader, count):
    return [reader.event() for _ in range(count)]


def test_a_command_that_ends_thousands_of_videos_is_told_whole(client, service, batch, stream, settings):
    with BatchService(settings(), simulate=True) as other:
        for number, who in enumerate((service, other)):
            reader = stream("/api/v1/events")
            reader.block()
            fill(who, 5000)
            numbers = [int(each["sequence"]) for _, each in next_of(reader, 5000)]
            assert numbers == list(range(5000 * number + 2, 5000 * number + 5002))


def test_a_comment_shows_that_a_silent_stream_lives(service, batch, stream, monkeypatch):
    monkeypatch.setattr(events, "COMMENT_SECONDS", 0.05)
    for reader in (stream(Last_Event_ID="1"), stream("/api/v1/events")):
        assert [reader.block() for _ in range(3)] == [[":"]] * 3


def test_a_reader_that_takes_nothing_is_let_go_and_can_resume(client, service, batch, stream, monkeypatch):
    monkeypatch.setattr(events, "SLOW_SECONDS", 0.2)
    slow = stream(Last_Event_ID="1")
    watcher = _watcher(client)
    until(lambda: "b" in watcher._feeds)
    for number in range(200):  # more than what the system keeps for a connection
        service.update_metadata("b", {"number": number, "text": "x" * 60_000})
    until(lambda: not watcher._feeds)
    slow.close()
    assert stream(Last_Event_ID="200").event()[0] == 201


def test_readers_share_one_look_at_the_database(client, service, batch, stream, monkeypatch):
    looks, look = [], service.look
    readers = [stream(Last_Event_ID="1") for _ in range(20)]
    for reader in readers:
        reader.block()
    monkeypatch.setattr(service, "look", lambda query: looks.append(1) or look(query))
    until(lambda: len(looks) >= 3)
    began, before = monotonic(), len(looks)
    until(lambda: len(looks) >= before + 3)
    assert monotonic() - began > 0.3
    change(service, 1)
    assert [reader.event()[0] for reader in readers] == [2] * 20
    for reader in readers:
        reader.close()
    service.cancel_batch("b")
    until(lambda: not _watcher(client)._feeds)


def test_nothing_is_looked_for_without_readers(client, service, batch):
    watcher = _watcher(client)
    assert client(f"{BATCHES}/b/events").status == 200
    assert watcher._looking is None
    assert not watcher._feeds
    assert [event.name for event in service.history("b")] == [EventName.BATCH_CREATED]


def _watcher(client):
    return client.listener.site.watcher
