"""Commands: what is read as one, and that nothing a message can hold does any harm."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.batch.command_data import (
    CancelData,
    CommandName,
    CreateData,
    ProcessData,
    ReplayData,
    ReportData,
    RetryData,
)
from actors.batch.requests import BatchVideoRequest
from actors.json_objects import MAX_DEPTH
from actors.rabbitmq.codec import CommandRefused, Message, ReceivedCommand, parse

DATA: dict[str, dict[str, Any]] = {
    "create": {
        "videos": [{"prompt": "A lake", "inputReference": {"fileId": "f"}}],
        "batchName": "Lakes",
        "metadata": {"keptAsIs": {"a": [1, 2.5, None]}},
    },
    "process": {"batch_id": "nature", "concurrency": 2},
    "cancel": {"batchId": "nature", "reason": "wrong prompts"},
    "retry": {"batch_id": "nature", "job_ids": ["nature-01"], "changes": {"nature-01": {"prompt": "A sea"}}},
    "report": {"batch_id": "nature"},
    "replay": {"batch_id": "nature", "fromSequence": 3},
}


def document(name: str = "process", **changes: Any) -> dict[str, Any]:
    whole = {
        "specversion": "1.0", "id": "1", "source": "/shop", "type": f"sora-batch.{name}.v1",
        "datacontenttype": "application/json", "data": DATA.get(name, {}), "traceparent": "an extension",
    }  # fmt: skip
    return whole | changes


def read(body: bytes | dict[str, Any], routing_key: str = "process", **properties: Any) -> ReceivedCommand:
    given = {"content_type": "application/cloudevents+json", **properties}
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    return parse(Message(text, routing_key, **given), max_bytes=20_000, max_size=3)


def refusal(body: bytes | dict[str, Any], routing_key: str = "process", **properties: Any) -> CommandRefused:
    with pytest.raises(CommandRefused) as caught:
        read(body, routing_key, **properties)
    return caught.value


def codes(refused: CommandRefused) -> list[tuple[str, str]]:
    return [(error.field, error.code) for error in refused.errors]


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("process", ProcessData(batch_id="nature", concurrency=2)),
        ("cancel", CancelData(batch_id="nature", reason="wrong prompts")),
        (
            "retry",
            RetryData(batch_id="nature", job_ids=["nature-01"], changes={"nature-01": {"prompt": "A sea"}}),
        ),
        ("report", ReportData(batch_id="nature")),
        ("replay", ReplayData(batch_id="nature", from_sequence=3)),
    ],
)
def test_a_command_is_read(name, data):
    command = read(document(name), name)
    assert (command.name, command.source, command.id, command.data) == (CommandName(name), "/shop", "1", data)
    assert command.batch_id == "nature"


def test_a_creation_holds_the_request_that_the_library_would_take():
    command = read(document("create"), "create")
    assert isinstance(command.data, CreateData)
    assert command.data.process
    assert command.data.request.model_dump() == BatchVideoRequest.parse(DATA["create"], max_size=3).model_dump()
    assert not read(document("create", data={**DATA["create"], "process": False}), "create").data.process


def test_the_batch_of_a_creation_is_named_by_the_request_or_by_the_command():
    named = read(document("create", data={**DATA["create"], "id": "nature"}), "create")
    derived = read(document("create"), "create").batch_id
    assert named.batch_id == "nature"
    assert derived == read(document("create", time="later"), "create").batch_id
    assert derived != read(document("create", id="2"), "create").batch_id
    assert derived != read(document("create", source="/news"), "create").batch_id
    assert BatchVideoRequest.parse({"videos": [{"prompt": "x"}], "id": derived}, max_size=1).id == derived


def test_source_and_id_are_kept_apart_when_a_batch_is_named():
    one = read(document("create", source="/a", id="bc"), "create").batch_id
    assert one != read(document("create", source="/ab", id="c"), "create").batch_id


@pytest.mark.parametrize(
    "content_type", ["application/json", "application/cloudevents+json; charset=UTF-8", "Application/JSON", None]
)
def test_these_content_types_are_read(content_type):
    assert read(document(), content_type=content_type).batch_id == "nature"


@pytest.mark.parametrize(
    ("properties", "code"),
    [
        ({"content_type": "text/plain"}, "content_type"),
        ({"content_type": "application/json; charset=latin-1"}, "content_type"),
        ({"content_type": "\ud800"}, "content_type"),
        ({"content_encoding": "gzip"}, "content_encoding"),
        ({"damage": "ValueError: year 54000"}, "amqp"),
    ],
)
def test_other_properties_are_refused(properties, code):
    assert codes(refusal(document(), **properties)) == [("", code)]


WHOLE = json.dumps(document()).encode()


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "not_json"),
        (b"\xff\xfe", "not_utf8"),
        (WHOLE.decode().encode("utf-16"), "not_utf8"),
        (b"\xef\xbb\xbf" + WHOLE, "not_json"),
        (b"[]", "not_object"),
        (b'"text"', "not_object"),
        (WHOLE[:-1], "not_json"),
        (WHOLE + WHOLE, "not_json"),
        (WHOLE.replace(b'"concurrency": 2', b'"concurrency": NaN'), "number"),
        (WHOLE.replace(b'"concurrency": 2', b'"concurrency": -Infinity'), "number"),
        (WHOLE.replace(b'"concurrency": 2', b'"concurrency": 1e999'), "number"),
        (WHOLE.replace(b'"concurrency": 2', b'"concurrency": ' + b"1" * 5000), "number"),
        (WHOLE.replace(b'"concurrency": 2', b'"batch_id": "other"'), "duplicate_key"),
        (b'{"id": "2", ' + WHOLE[1:], "duplicate_key"),
        (b"[" * 19_000, "too_deep"),
        (b'{"a":' * 3000 + b"1" + b"}" * 3000, "too_deep"),
        (b'{"a":' * (MAX_DEPTH + 1) + b"1" + b"}" * (MAX_DEPTH + 1), "too_deep"),
        (WHOLE + b" " * 20_000, "too_long"),
    ],
)
def test_a_body_that_is_no_plain_json_object_is_refused(body, code):
    assert codes(refusal(body)) == [("", code)]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"specversion": "0.3"}, "/specversion"),
        ({"id": ""}, "/id"),
        ({"id": 7}, "/id"),
        ({"id": "ä" * 128}, "/id"),
        ({"id": "a\nb"}, "/id"),
        ({"id": "\ud800"}, "/id"),
        ({"source": None}, "/source"),
        ({"source": "/" * 513}, "/source"),
        ({"source": "\0"}, "/source"),
        ({"type": 1}, "/type"),
        ({"datacontenttype": "text/xml"}, "/datacontenttype"),
        ({"data": None}, "/data"),
        ({"data": "{}"}, "/data"),
        ({"data": {"batch_id": "nature", "x": 1}}, "/data/x"),
        ({"data": {"batch_id": "nature", "batchId": "nature"}}, "/data/batch_id"),
        ({"data": {"batch_id": "../etc"}}, "/data/batch_id"),
        ({"data": {"batch_id": "nature\n"}}, "/data/batch_id"),
        ({"data": {"batch_id": "nature", "concurrency": True}}, "/data/concurrency"),
        ({"data": {"batch_id": "nature", "concurrency": 0}}, "/data/concurrency"),
    ],
)
def test_the_refusal_names_the_field(changes, field):
    assert field in {place for place, _ in codes(refusal(document(**changes)))}


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("sora-batch.process.v2", "unknown_version"),
        ("sora-batch.explode.v1", "unknown_type"),
        ("sora-batch.batch.created.v1", "unknown_type"),
        ("com.example.process", "unknown_type"),
        ("sora-batch.process.v1\n", "unknown_version"),
    ],
)
def test_an_unknown_type_or_version_is_refused(kind, code):
    assert codes(refusal(document(type=kind))) == [("/type", code)]


def test_the_routing_key_must_be_the_commands_name():
    """Who may only write `report` must not cancel."""
    refused = refusal(document("cancel"), "report")
    assert codes(refused) == [("", "routing_key")]
    assert "'report'" in str(refused)
    assert refused.errors[0].expected == "the routing key cancel"


def test_a_wrong_request_is_named_field_by_field():
    videos = [{"prompt": ""}, {"prompt": "x", "duration": -1}]
    refused = refusal(document("create", data={"videos": videos, "process": "yes"}), "create")
    assert {field for field, _ in codes(refused)} == {
        "/data/videos/0/prompt", "/data/videos/1/duration", "/data/process"
    }  # fmt: skip
    assert codes(refusal(document("create", data={"videos": [{"prompt": "x"}] * 4}), "create")) == [
        ("/data/videos", "too_long")
    ]


def test_very_many_errors_are_told_as_one():
    refused = refusal(document("create", data={"videos": [1] * 5000}), "create")
    assert len(refused.errors) == 1
    assert "5000 fields" in str(refused)


def test_what_can_be_read_of_a_refused_command_is_told_so_that_it_can_be_answered():
    refused = refusal(document(data={}))
    assert (refused.source, refused.id, refused.name) == ("/shop", "1", "process")
    unread = refusal(b"{", message_id="m-1")
    assert (unread.source, unread.id, unread.name) == ("", "m-1", None)
    assert refusal(document(id="x" * 300)).id is None
    assert refusal(document(id="\ud800", type=["process"], source={})).id is None


def test_a_message_in_dramatiqs_own_format_is_no_command():
    forged = {
        "queue_name": "sora.batch.commands", "actor_name": "sora.batch.commands", "args": [], "kwargs": {},
        "options": {"eta": 1}, "message_id": "1", "message_timestamp": 1,
    }  # fmt: skip
    assert {"/specversion", "/id", "/source", "/type", "/data"} == {field for field, _ in codes(refusal(forged))}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)


def attempt(body: bytes, routing_key: str, **properties: Any) -> None:
    """It is a command, or it is refused with errors that a person can read."""
    errors = ()
    try:
        read(body, routing_key, **properties)
    except CommandRefused as refused:
        errors = refused.errors or ("no error at all",)
    assert all(error.message and (error.field == "" or error.field.startswith("/")) for error in errors)


@given(st.binary(max_size=300), st.text(max_size=10), st.none() | st.text(max_size=20), st.none() | st.text())
def test_any_bytes_are_a_command_or_refused(body, routing_key, content_type, message_id):
    attempt(body, routing_key, content_type=content_type, message_id=message_id)


@given(JSON)
def test_any_json_is_a_command_or_refused(value):
    attempt(json.dumps(value).encode(), "create", content_type="application/json")


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, each in inner for place in places(each, (*path, key)))]


@st.composite
def mutated(draw: st.DrawFn) -> tuple[str, bytes]:
    """A valid command in which one thing is another."""
    name = draw(st.sampled_from(list(CommandName)))
    whole = json.loads(json.dumps(document(name)))
    *way, last = draw(st.sampled_from(places(whole)[1:]))
    at = whole
    for step in way:
        at = at[step]
    if draw(st.booleans()):
        at[last] = draw(JSON)
    else:
        del at[last]
    return name, json.dumps(whole).encode()


@given(mutated())
def test_a_command_in_which_one_thing_is_wrong_is_a_command_or_refused(changed):
    name, body = changed
    attempt(body, name)


@given(st.sampled_from(list(CommandName)), st.data())
def test_a_command_in_which_some_bytes_are_wrong_is_a_command_or_refused(name, data):
    body = bytearray(json.dumps(document(name)).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    attempt(bytes(body), name)
