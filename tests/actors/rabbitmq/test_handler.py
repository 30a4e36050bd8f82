"""CommandHandler: what each command does, how it is answered, and what becomes of its message."""

import base64
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actors.batch.cleanup import Maintenance
from actors.errors import StorageError
from actors.rabbitmq import handler as handler_module
from actors.rabbitmq.codec import Message
from actors.rabbitmq.handler import CREATION_PATIENCE, CommandHandler, Postpone, Requeue, Unreadable
from actors.rabbitmq.refusals import ConnectionGone, Nacked
from actors.service import BatchService
from actors.settings import Settings

PNG = b"\x89PNG\r\n\x1a\n" + b"picture"
LAKE = {"videos": [{"prompt": "A lake"}], "id": "nature", "process": False}


@dataclass
class Published:
    exchange: str
    key: str
    body: bytes
    properties: Any

    @property
    def document(self) -> dict[str, Any]:
        return dict(json.loads(self.body))

    @property
    def data(self) -> dict[str, Any]:
        return dict(self.document["data"])


class Broker:
    """What is published, and what the broker says to it."""

    def __init__(self) -> None:
        self.published: list[Published] = []
        self.word: Callable[[Future[None]], None] = lambda future: future.set_result(None)

    def publish(self, exchange: str, key: str, body: bytes, properties: Any) -> Future[None]:
        self.published.append(Published(exchange, key, body, properties))
        future: Future[None] = Future()
        self.word(future)
        return future

    @property
    def last(self) -> Published:
        return self.published[-1]


@pytest.fixture
def make_service(tmp_path: Path) -> Iterator[Callable[..., BatchService]]:
    made: list[BatchService] = []

    def make(**changes: Any) -> BatchService:
        here = {
            "openai_base_url": "http://127.0.0.1:9/v1", "database_url": f"sqlite:///{tmp_path}/b.db",
            "video_dir": str(tmp_path / "videos"),
        }  # fmt: skip
        made.append(BatchService(Settings(_env_file=None, **here | changes)))
        return made[-1]

    yield make
    for service in made:
        service.close()


@pytest.fixture
def service(make_service):
    return make_service()


@pytest.fixture
def broker():
    return Broker()


@pytest.fixture
def stopping():
    return threading.Event()


@pytest.fixture
def handler(service, broker, stopping):
    return CommandHandler(service, broker.publish, stopping)


def message(name: str, data: dict[str, Any], command_id: str = "1", **more: Any) -> Message:
    document = {"specversion": "1.0", "id": command_id, "source": "/shop", "type": f"sora-batch.{name}.v1", **more}
    return Message(json.dumps({**document, "data": data}).encode(), name, "application/cloudevents+json")


def wanted(service: BatchService, batch_id: str = "nature") -> bool:
    return service._read(lambda: service._storage.batches.get(batch_id).wanted)


def refused(handler: CommandHandler, broker: Broker, sent: Message, since: float | None = None) -> list[dict[str, Any]]:
    handler.handle(sent, since)  # answered, and not kept
    assert broker.last.document["type"] == "sora-batch.command.rejected.v1"
    return list(broker.last.data["errors"])


def test_a_creation_is_answered_and_its_batch_is_wanted(handler, broker, service):
    handler.handle(message("create", {"videos": [{"prompt": "A lake"}, {"prompt": "A sea"}], "id": "nature"}))
    answer = broker.last
    assert (answer.exchange, answer.key) == ("sora.batch.events", "command.accepted.nature")
    assert answer.data == {"command": "create", "batch_id": "nature", "job_ids": ["nature-01", "nature-02"]}
    assert answer.document["correlationid"] == answer.properties.correlation_id == "1"
    assert answer.document["source"] == "/sora-batch/commands"
    assert "sequence" not in answer.document
    assert answer.properties.message_id == answer.document["id"]
    assert (answer.properties.content_type, answer.properties.delivery_mode) == ("application/cloudevents+json", 2)
    assert wanted(service)


def test_a_creation_that_is_not_to_be_processed_waits(handler, service):
    handler.handle(message("create", LAKE))
    assert not wanted(service)
    handler.handle(message("process", {"batch_id": "nature", "concurrency": 2}, "2"))
    assert wanted(service)
    assert service.get_batch_status("nature").concurrency == 2


def test_a_creation_without_an_id_makes_one_batch_however_often_it_comes(handler, broker, service):
    for _ in range(3):
        handler.handle(message("create", {"videos": [{"prompt": "A lake"}]}))
    (batch,) = service.list_batches()
    assert broker.last.data["batch_id"] == batch.id


def test_a_command_that_comes_twice_is_done_once_and_answered_alike(handler, broker, service):
    for _ in range(2):
        handler.handle(message("create", LAKE))
    service.cancel_batch("nature")
    handler.handle(message("create", LAKE))
    first, second, third = broker.published
    assert first.body == second.body == third.body
    assert [event.name for event in service.history("nature")].count("batch.created") == 1


def test_a_cancellation_that_comes_twice_has_the_first_ones_answer(handler, broker):
    handler.handle(message("create", LAKE))
    for _ in range(2):
        handler.handle(message("cancel", {"batch_id": "nature", "reason": "wrong"}, "2"))
    assert broker.published[1].body == broker.published[2].body
    assert broker.last.data["summary"]["cancelled"] == 1


def test_the_same_id_with_another_body_is_refused(handler, broker, service):
    handler.handle(message("create", LAKE))
    accepted = broker.last.document["id"]
    (error,) = refused(handler, broker, message("create", {**LAKE, "id": "other"}))
    assert (error["field"], error["code"]) == ("/id", "id_used")
    assert broker.last.document["correlationid"] == "1"
    assert broker.last.document["id"] != accepted
    assert [batch.id for batch in service.list_batches()] == ["nature"]


def test_a_refusal_stays_what_it_was(handler, broker, service):
    handler.handle(message("create", LAKE))
    retry = message("retry", {"batch_id": "nature"}, "2")
    (error,) = refused(handler, broker, retry)
    assert (error["field"], error["code"]) == ("/data/batch_id", "conflict")
    service.cancel_batch("nature")
    first = broker.last.body
    refused(handler, broker, retry)
    assert broker.last.body == first
    assert service.get_batch_status("nature").status == "cancelled"


def test_a_retry_names_the_jobs_that_are_tried_again(handler, broker, service):
    handler.handle(message("create", {**LAKE, "videos": [{"prompt": "A lake"}, {"prompt": "A sea"}]}))
    service.cancel_batch("nature")
    changes = {"nature-02": {"prompt": "A calm sea"}}
    handler.handle(message("retry", {"batchId": "nature", "changes": changes}, "2"))
    assert broker.last.data == {"command": "retry", "batch_id": "nature", "job_ids": ["nature-02"]}
    assert service.get_batch_status("nature").jobs[1].prompt == "A calm sea"
    assert wanted(service)


def test_an_update_replaces_what_it_names_and_is_told_once(handler, broker, service):
    handler.handle(message("create", {**LAKE, "metadata": {"a": 1}, "budget": {"amount": 3, "unit": "videos"}}))
    handler.handle(message("update", {"batchId": "nature", "metadata": {"b": True}}, "2"))
    assert broker.last.data == {"command": "update", "batch_id": "nature"}
    assert service.get_batch_status("nature").metadata == {"b": True}
    handler.handle(message("update", {"batch_id": "nature", "budget": {"amount": "20.5", "unit": "USD"}}, "3"))
    handler.handle(message("update", {"batch_id": "nature", "metadata": {"b": True}, "budget": []}, "4"))
    handler.handle(message("update", {"batch_id": "nature", "budget": []}, "5"))  # so it is
    handler.handle(message("update", {"batch_id": "nature", "metadata": {"b": 1}}, "6"))
    assert broker.last.data == {"command": "update", "batch_id": "nature"}
    told = [each.data for each in service.history("nature") if each.name == "batch.updated"]
    kept = {"batch_id", "status", "progress"}
    assert [{name: each[name] for name in each.keys() - kept} for each in told] == [
        {"metadata": {"b": True}}, {"budget": [{"amount": "20.5", "unit": "USD"}]}, {"budget": []},
        {"metadata": {"b": 1}},
    ]  # fmt: skip
    assert [int(each.sequence) for each in service.history("nature")] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("data", "field"),
    [
        ({}, "/data"),
        ({"metadata": None}, "/data"),
        ({"metadata": [1]}, "/data/metadata"),
        ({"metadata": {"a": "x" * 70_000}}, "/data/metadata"),
        ({"budget": {"amount": 0, "unit": "USD"}}, "/data/budget/0/amount"),
        ({"budget": [{"amount": 1, "unit": "USD"}] * 2}, "/data/budget"),
        ({"budget": {"amount": 1, "unit": "apples"}}, "/data/budget/0/unit"),
        ({"more": 1}, "/data/more"),
    ],
)
def test_an_update_that_can_not_be_is_refused_with_its_field(handler, broker, service, data, field):
    handler.handle(message("create", LAKE))
    (error,) = refused(handler, broker, message("update", {"batch_id": "nature", **data}, "2"))
    assert error["field"] == field
    assert len(service.history("nature")) == 1


def test_a_deletion_takes_the_files_unless_they_are_to_be_kept(handler, broker, service, tmp_path, mocker):
    for batch_id, keeps in (("one", False), ("two", True)):
        handler.handle(message("create", {**LAKE, "id": batch_id}, batch_id))
        (error,) = refused(handler, broker, message("delete", {"batch_id": batch_id}, f"early {batch_id}"))
        assert (error["field"], error["code"]) == ("/data/batch_id", "conflict")
        service.cancel_batch(batch_id)
        service._recorder.write(lambda: None).result()  # orphans of the cancelled batch were looked for
        file = tmp_path / "videos" / batch_id / "kept.mp4"
        file.parent.mkdir(parents=True)
        file.touch()
        sent = message("delete", {"batch_id": batch_id, "keep_files": keeps}, f"delete {batch_id}")
        if not keeps:
            broken_off = mocker.patch.object(Maintenance, "finish_deletion", side_effect=KeyboardInterrupt)
            with pytest.raises(KeyboardInterrupt):
                handler.handle(sent)
            assert file.exists(), "recorded before the first was removed"
            mocker.stop(broken_off)
        handler.handle(sent)
        assert broker.last.data == {"command": "delete", "batch_id": batch_id}
        assert file.exists() is keeps
        assert service.recorded(batch_id)[-1].type == "batch.deleted"
    assert service.list_batches() == []
    (error,) = refused(handler, broker, message("delete", {"batch_id": "one"}, "again"))
    assert (error["field"], error["code"]) == ("/data/batch_id", "not_found")


def test_a_deletion_that_comes_again_leaves_another_batch_of_that_id_alone(handler, service, tmp_path):
    handler.handle(message("create", LAKE))
    service.cancel_batch("nature")
    sent = message("delete", {"batch_id": "nature"}, "2")
    handler.handle(sent)
    service.create_batch({"id": "nature", "videos": [{"prompt": "A sea"}]})
    file = tmp_path / "videos" / "nature" / "of-another.mp4"
    file.parent.mkdir(parents=True)
    file.touch()
    handler.handle(sent)
    assert file.exists()
    assert service.get_batch_status("nature").status == "pending"


@pytest.mark.parametrize("name", ["process", "cancel", "retry", "update"])
def test_a_command_waits_for_the_creation_of_its_batch(handler, broker, service, name):
    more = {"metadata": {"a": 1}} if name == "update" else {}
    sent = message(name, {"batch_id": "nature", **more}, "2")
    with pytest.raises(Postpone) as first:
        handler.handle(sent)
    with pytest.raises(Postpone) as second:
        handler.handle(sent, first.value.since)
    assert second.value.since == first.value.since
    assert not broker.published
    handler.handle(message("create", LAKE))
    if name == "retry":
        service.cancel_batch("nature")
    handler.handle(sent, first.value.since)
    assert broker.last.key == "command.accepted.nature"


def test_a_command_does_not_wait_for_ever(handler, broker):
    sent = message("process", {"batch_id": "nature"})
    with pytest.raises(Postpone) as waiting:
        handler.handle(sent)
    (error,) = refused(handler, broker, sent, waiting.value.since - CREATION_PATIENCE)
    assert (error["field"], error["code"]) == ("/data/batch_id", "not_found")
    assert broker.last.key == "command.rejected.nature"


def test_who_claims_to_wait_since_tomorrow_waits_since_now(handler):
    with pytest.raises(Postpone) as waiting:
        handler.handle(message("process", {"batch_id": "nature"}), 1e15)
    assert waiting.value.since < 1e12


@pytest.mark.parametrize("name", ["report", "replay"])
def test_who_asks_about_an_unknown_batch_is_told_at_once(handler, broker, name):
    (error,) = refused(handler, broker, message(name, {"batch_id": "nature"}))
    assert error["code"] == "not_found"
    assert "b.db" not in error["message"]
    assert len(broker.published) == 1


def test_a_report_tells_the_batch_as_it_stands(handler, broker, service):
    handler.handle(message("create", LAKE))
    service.cancel_batch("nature")
    handler.handle(message("report", {"batch_id": "nature"}, "2"))
    report, answer = broker.published[-2:]
    assert (report.exchange, report.key) == ("sora.batch.replays", "batch.reported.nature")
    assert report.data["as_of_sequence"] == len(service.history("nature"))
    assert report.data["batch"] == service.get_batch_status("nature").model_dump(mode="json")
    assert (report.data["batch_id"], report.data["status"]) == ("nature", "cancelled")
    assert report.document["correlationid"] == "2"
    assert answer.key == "command.accepted.nature"


def test_a_replay_tells_the_recorded_events_again(handler, broker, service):
    handler.handle(message("create", LAKE))
    service.cancel_batch("nature")
    handler.handle(message("replay", {"batch_id": "nature", "from_sequence": 2}, "2"))
    recorded = service.recorded("nature", 2)
    replayed = broker.published[1:-1]
    assert [each.body.decode() for each in replayed] == [record.body for record in recorded]
    assert [each.key for each in replayed] == [record.key for record in recorded]
    assert {each.exchange for each in replayed} == {"sora.batch.replays"}
    assert [each.properties.message_id for each in replayed] == ["nature:0000000002", "nature:0000000003"]


def test_a_long_replay_goes_page_by_page(handler, broker, service, monkeypatch):
    monkeypatch.setattr(handler_module, "_PAGE", 1)
    handler.handle(message("create", LAKE))
    service.cancel_batch("nature")
    handler.handle(message("replay", {"batch_id": "nature"}, "2"))
    assert len(broker.published) == 1 + len(service.history("nature")) + 1


def test_a_retry_hands_its_consents_on(handler, service, mocker):
    obeyed = mocker.spy(service, "obey")
    for number, consents in enumerate([{}, {"pay_again": True}, {"move_server": True}]):
        handler.handle(message("retry", {"batch_id": "nature", **consents}, str(number)), since=0.0)
    commands = [call.args[0] for call in obeyed.call_args_list]
    assert [(command.pay_again, command.move_server) for command in commands] == [
        (False, False),
        (True, False),
        (False, True),
    ]


def test_the_events_of_a_deleted_batch_are_replayed(handler, broker, service):
    handler.handle(message("create", LAKE))
    service.cancel_batch("nature")
    service.delete_batch("nature")
    handler.handle(message("replay", {"batch_id": "nature"}, "2"))
    assert [each.key.split(".")[1] for each in broker.published[1:-1]] == [
        "created",
        "cancelled",
        "cancelled",
        "deleted",
    ]


def test_a_message_that_can_not_be_answered_is_refused_in_silence(handler, broker):
    with pytest.raises(Unreadable, match="not UTF-8"):
        handler.handle(Message(b"\xff", "create"))
    assert not broker.published


def test_a_message_that_is_no_command_is_answered_by_its_message_id(handler, broker):
    with pytest.raises(Unreadable):
        handler.handle(Message(b"{", "create", message_id="m-1"))
    assert broker.last.key == "command.rejected._"
    assert broker.last.document["correlationid"] == "m-1"
    assert broker.last.data["command"] is None


def test_errors_that_hold_what_no_document_can_are_told_all_the_same(handler, broker):
    (error,) = refused(handler, broker, message("create", {"videos": [{"prompt": "\ud800"}]}))
    assert error["field"] == "/data/videos/0/prompt"


def test_a_command_reads_no_local_file_and_is_not_told_which_there_are(handler, broker, tmp_path):
    (tmp_path / "there.png").write_bytes(PNG)
    texts = []
    for number, path in enumerate([tmp_path / "there.png", tmp_path / "not.png"]):
        videos = [{"prompt": "A lake", "input_reference": str(path)}]
        (error,) = refused(handler, broker, message("create", {"videos": videos}, str(number)))
        assert error["field"] == "/data/videos/0/input_reference"
        texts.append(error["message"].replace(str(path), "PATH"))
    assert texts[0] == texts[1]


@pytest.mark.parametrize("url", ["https://127.0.0.1/a.png", "http://localhost/a.png", "file:///etc/passwd"])
def test_a_command_fetches_no_address_that_is_not_allowed(handler, broker, url):
    videos = [{"prompt": "A lake", "input_reference": url}]
    (error,) = refused(handler, broker, message("create", {"videos": videos}))
    assert error["field"] == "/data/videos/0/input_reference"


def test_a_retry_reads_no_local_file_either(handler, broker, service, tmp_path):
    (tmp_path / "there.png").write_bytes(PNG)
    handler.handle(message("create", LAKE))
    service.cancel_batch("nature")
    changes = {"nature-01": {"input_reference": str(tmp_path / "there.png")}}
    (error,) = refused(handler, broker, message("retry", {"batch_id": "nature", "changes": changes}, "2"))
    assert error["field"] == "/data/changes/nature-01/input_reference"


def test_what_is_allowed_is_taken(make_service, broker, stopping, tmp_path):
    (tmp_path / "there.png").write_bytes(PNG)
    handler = CommandHandler(make_service(sora_reference_dirs=str(tmp_path)), broker.publish, stopping)
    data = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
    videos = [{"prompt": "A lake", "input_reference": each} for each in (str(tmp_path / "there.png"), data)]
    handler.handle(message("create", {"videos": videos}))
    assert broker.last.data["command"] == "create"


class Flaky:
    """A service whose database is away for some calls."""

    def __init__(self, service: BatchService, error: StorageError, times: int) -> None:
        self._service, self._error, self._times = service, error, times
        self.settings, self.now, self.observer = service.settings, service.now, service.observer

    def obey(self, *arguments: Any) -> str:
        self._times -= 1
        if self._times >= 0:
            raise self._error
        return self._service.obey(*arguments)


def test_an_outage_of_the_database_is_waited_out(service, broker, stopping, monkeypatch):
    monkeypatch.setattr(handler_module, "_FIRST_PAUSE", 0.001)
    flaky = Flaky(service, StorageError("away"), times=3)
    CommandHandler(flaky, broker.publish, stopping).handle(message("create", LAKE))
    assert broker.last.key == "command.accepted.nature"


def test_who_is_to_stop_leaves_what_came_before_its_creation_to_others(handler, broker, stopping):
    stopping.set()
    with pytest.raises(Postpone):
        handler.handle(message("process", {"batch_id": "nature"}))
    assert not broker.published


def test_who_is_to_stop_waits_for_no_database(service, broker, stopping):
    stopping.set()
    flaky = Flaky(service, StorageError("away"), times=9)
    with pytest.raises(Requeue):
        CommandHandler(flaky, broker.publish, stopping).handle(message("create", LAKE))
    assert not broker.published


def test_a_service_that_is_closed_meanwhile_leaves_the_command_to_others(service, broker, handler):
    service.close()
    with pytest.raises(Requeue):
        handler.handle(message("create", LAKE))
    assert not broker.published


def test_a_failure_that_waiting_can_not_mend_is_answered(service, broker, stopping):
    error = StorageError("the value is too long")
    error.__cause__ = ValueError()
    flaky = Flaky(service, error, times=9)
    (told,) = refused(CommandHandler(flaky, broker.publish, stopping), broker, message("create", LAKE))
    assert told["code"] == "internal"


def test_an_answer_that_is_not_confirmed_is_given_again(handler, broker, service, monkeypatch):
    monkeypatch.setattr(handler_module, "CONFIRM_PATIENCE", 0.001)
    broker.word = lambda future: None
    with pytest.raises(Requeue):
        handler.handle(message("create", LAKE))
    broker.word = lambda future: future.set_result(None)
    handler.handle(message("create", LAKE))
    first, second = broker.published
    assert first.body == second.body
    assert len(service.history("nature")) == 1


def test_an_answer_whose_connection_is_closed_is_given_again(handler, broker):
    broker.word = lambda future: future.set_exception(ConnectionGone("closed"))
    with pytest.raises(Requeue):
        handler.handle(message("create", LAKE))


def test_a_subscribers_full_queue_does_not_stop_the_answers(handler, broker):
    broker.word = lambda future: future.set_exception(Nacked("full"))
    handler.handle(message("create", LAKE))
    assert len(broker.published) == 1


VALUES = st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.lists(st.text(max_size=3), max_size=2)
WISHES = {
    "create": {"videos": [{"prompt": "A lake", "size": "1280x720", "duration": 5}], "id": "nature", "batch_name": "N"},
    "process": {"batch_id": "nature", "concurrency": 3},
    "cancel": {"batch_id": "nature", "reason": "x"},
    "retry": {"batch_id": "nature", "job_ids": ["nature-01"], "changes": {"nature-01": {"size": "1280x720"}}},
    "report": {"batch_id": "nature"},
    "replay": {"batch_id": "nature", "from_sequence": 2},
}


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.sampled_from(list(WISHES)), st.data())
def test_whatever_comes_is_answered(service, broker, stopping, name, data):
    """Valid commands in any order, some with one value changed: each is answered, and nothing else is raised."""
    wish = json.loads(json.dumps(WISHES[name]))
    field = data.draw(st.sampled_from([None, *wish]))
    if field is not None:
        wish[field] = data.draw(VALUES)
    before = len(broker.published)
    sent = message(name, wish, str(data.draw(st.integers(0, 10**9))))
    try:
        CommandHandler(service, broker.publish, stopping).handle(sent)
    except Postpone:
        assert len(broker.published) == before
    else:
        assert broker.last.key.startswith("command.")
