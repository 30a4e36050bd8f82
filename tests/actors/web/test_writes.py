"""What the API changes: one command for each request, done once for each Idempotency-Key."""

import json
import threading

import pytest

from actors.batch.events import EventName
from actors.errors import StorageError
from storage.states import JobStatus
from tests.actors.web.conftest import request_of
from tests.builders import NOON, a_batch, a_job, put

BATCHES = "/api/v1/batches"
VIDEO = {"uri": "file:///a.mp4", "path": "/a.mp4", "bytes": 3, "sha256": "0" * 64, "content_type": "video/mp4"}


@pytest.fixture
def batch(client):
    return client(BATCHES, request_of("one", "two", id="b", metadata={"a": 1, "n": {"x": 1, "y": 2}}, process=False))


def cancelled(client):
    assert client(f"{BATCHES}/b/cancel", {}).status == 200


def test_a_batch_is_created_once(client, service):
    document = request_of("one", id="b", process=False)
    made = client(BATCHES, document)
    assert (made.status, made.headers["Location"], made.headers["ETag"]) == (201, f"{BATCHES}/b", '"1"')
    assert made.json == service.get_batch_status("b").model_dump(mode="json")
    again = client(BATCHES, document)
    assert (again.status, again.headers["Location"], again.json) == (200, f"{BATCHES}/b", made.json)
    assert client(BATCHES, request_of("other", id="b")).problem == (409, "conflict")
    assert client(BATCHES, request_of("one", process=False)).json["id"] != "b"


def test_a_batch_is_queued_unless_it_says_otherwise(client, service):
    assert client(BATCHES, request_of("one", id="b")).status == 201
    assert service._storage.database.read(lambda: service._storage.batches.get("b").wanted)
    client(BATCHES, request_of("one", id="c", process=False))
    queued = client(f"{BATCHES}/c/process", {"concurrency": 2})
    assert (queued.status, queued.json["id"], queued.json["concurrency"]) == (202, "c", 2)
    assert client(f"{BATCHES}/c/process", method="POST").status == 202


def test_a_key_that_is_used_again_gets_the_first_answer(client, service):
    document = request_of("one", process=False)
    made = client(BATCHES, document, Idempotency_Key="k-1")
    assert (made.status, made.headers["Idempotency-Replayed"]) == (201, None)
    service.update_metadata(made.json["id"], {"later": True})
    for key in ("k-1", '"k-1"', " k-1 "):
        again = client(BATCHES, document, Idempotency_Key=key)
        assert (again.status, again.body, again.headers["Idempotency-Replayed"]) == (201, made.body, "true")
        assert [again.headers[name] for name in ("Location", "ETag", "Content-Type")] == [
            made.headers[name] for name in ("Location", "ETag", "Content-Type")
        ]
    assert len(service.list_batches()) == 1
    other = client(BATCHES, request_of("other"), Idempotency_Key="k-1")
    assert other.problem == (422, "invalid_request")
    assert other.json["errors"][0]["field"] == "Idempotency-Key"
    elsewhere = client(f"{BATCHES}/{made.json['id']}/process", document, Idempotency_Key="k-1")
    assert elsewhere.problem == (422, "invalid_request")


def test_a_refusal_is_replayed_too_but_not_an_outage(client, service, batch, monkeypatch):
    first = client(f"{BATCHES}/b/retry", {}, Idempotency_Key="r")
    assert first.problem == (409, "conflict")
    cancelled(client)
    again = client(f"{BATCHES}/b/retry", {}, Idempotency_Key="r")
    assert (again.problem, again.body) == (first.problem, first.body)
    assert again.headers["Idempotency-Replayed"] == "true"
    assert client(f"{BATCHES}/b/retry", {"x": 1}, Idempotency_Key="r2").status == 422
    with monkeypatch.context() as patch:
        patch.setattr(service, "obey", lambda *_: (_ for _ in ()).throw(StorageError("away")))
        assert client(f"{BATCHES}/b/retry", {}, Idempotency_Key="r2").problem == (503, "storage")
    retried = client(f"{BATCHES}/b/retry", {}, Idempotency_Key="r2")
    assert (retried.status, retried.json["status"], retried.json["left_alone"]) == (202, "pending", [])


def test_what_is_not_understood_uses_up_no_key(client, service):
    for wrong in (
        b"{",
        {"videos": []},
        request_of("one", id="b", videos_=1),
        _with_reference("data:image/png;base64,AA"),
    ):
        assert client(BATCHES, wrong, Idempotency_Key="k").status in (400, 422), wrong
    made = client(BATCHES, request_of("one", process=False), Idempotency_Key="k")
    assert (made.status, made.headers["Idempotency-Replayed"]) == (201, None)
    assert client(BATCHES, request_of("two"), Idempotency_Key="k").json["errors"][0]["code"] == "id_used"


def _with_reference(reference):
    return {"videos": [{"prompt": "one", "input_reference": reference}]}


def test_a_replay_needs_nothing_that_the_first_time_needed(client, service, monkeypatch):
    document = request_of("one", process=False)
    made = client(BATCHES, document, Idempotency_Key="k")
    monkeypatch.setattr("actors.web.api.orders.command_of", lambda *_, **__: 1 / 0)  # an address is away by now
    again = client(BATCHES, document, Idempotency_Key="k")
    assert (again.status, again.body) == (201, made.body)


def test_the_same_key_from_many_at_once_creates_one_batch(client, service):
    answers, document = [], request_of("one", process=False)

    def create():
        answers.append(client(BATCHES, document, Idempotency_Key="k"))

    threads = [threading.Thread(target=create) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {each.status for each in answers} == {201}
    assert len({each.body for each in answers}) == 1
    assert sorted(str(each.headers["Idempotency-Replayed"]) for each in answers) == ["None", *["true"] * 7]
    assert len(service.list_batches()) == 1


def test_a_key_is_one_printable_word(client):
    for key in ("", '""', "x" * 256, "a\tb", "caf\xe9"):
        assert client(BATCHES, request_of("one"), Idempotency_Key=key).problem == (422, "invalid_request"), key


def test_a_cancellation_is_summed_up(client, service, batch):
    answer = client(f"{BATCHES}/b/cancel", {"reason": "enough"})
    assert answer.status == 200
    assert answer.json == service.cancel_batch("b").model_dump(mode="json")
    assert client(f"{BATCHES}/b/cancel", method="POST").json == answer.json
    retried = client(f"{BATCHES}/b/retry", {"job_ids": ["b-02"], "changes": {"b-02": {"prompt": "else"}}})
    assert (retried.status, retried.json["jobs"][1]["prompt"]) == (202, "else")


def test_metadata_are_merged(client, service, batch):
    def patch(document, **headers):
        return client(f"{BATCHES}/b", document, "PATCH", **headers)

    answer = patch({"metadata": {"a": None, "n": {"x": None, "z": {"w": None}}, "new": [1, None]}})
    assert answer.status == 200
    assert answer.json["metadata"] == {"n": {"y": 2, "z": {}}, "new": [1, None]}
    assert answer.headers["ETag"] == '"2"'
    assert patch({}, Content_Type="application/merge-patch+json").headers["ETag"] == '"2"'
    assert patch({"metadata": None}).json["metadata"] == {}
    assert patch({"budget": {"amount": 20, "unit": "USD"}}).status == 200
    assert service._storage.database.read(lambda: service._storage.batches.get("b")).budget[0]["unit"] == "USD"
    assert patch({"budget": None}).status == 200
    assert service._storage.database.read(lambda: service._storage.batches.get("b")).budget == []
    assert [event.name for event in service.history("b")][1:] == [EventName.BATCH_UPDATED] * 4
    for wrong in ({"name": "x"}, {"metadata": [1]}, {"metadata": "x"}, {"budget": {"amount": -1, "unit": "USD"}}):
        assert patch(wrong).problem == (422, "invalid_request"), wrong
    for _ in range(2):
        whole = patch({"metadata": {f"k{_}": "x" * 40_000}})
    assert whole.problem == (422, "invalid_request")  # together they are too large
    assert "k1" not in service.get_batch_status("b").metadata


def test_what_has_changed_in_between_is_not_overwritten(client, batch):
    tag = batch.headers["ETag"]
    assert client(f"{BATCHES}/b").headers["ETag"] == tag
    assert client(f"{BATCHES}/b", {"metadata": {"x": 1}}, "PATCH", If_Match=f'W/"9", {tag}').status == 200
    stale = client(f"{BATCHES}/b", {"metadata": {"x": 2}}, "PATCH", If_Match=tag)
    assert stale.problem == (412, "conflict")
    for nonsense in ('"x"', "x", f"W/{tag}", '"' + "9" * 50 + '"'):
        assert client(f"{BATCHES}/b", {"metadata": {"x": 3}}, "PATCH", If_Match=nonsense).status == 412
    assert client(f"{BATCHES}/b/cancel", {}, If_Match=tag).status == 412
    assert client(f"{BATCHES}/b/cancel", {}, If_Match="*").status == 200
    assert client(f"{BATCHES}/b", method="DELETE", If_Match=tag).status == 412
    assert client(f"{BATCHES}/none", {}, "PATCH", If_Match="*").status == 404


def test_what_has_not_changed_is_not_sent_again(client, batch):
    tag = batch.headers["ETag"]
    for given in (tag, f"W/{tag}", f'"x", {tag}', "*"):
        answer = client(f"{BATCHES}/b", If_None_Match=given)
        assert (answer.status, answer.body, answer.headers["ETag"]) == (304, b"", tag)
    client(f"{BATCHES}/b", {"metadata": {"x": 1}}, "PATCH")
    assert client(f"{BATCHES}/b", If_None_Match=tag).status == 200
    assert client(f"{BATCHES}/none", If_None_Match="*").status == 404


def test_a_batch_is_deleted_when_it_has_ended(client, batch):
    assert client(f"{BATCHES}/b", method="DELETE").problem == (409, "conflict")
    cancelled(client)
    assert client(f"{BATCHES}/b?keep_files=maybe", method="DELETE").status == 422
    done = client(f"{BATCHES}/b?keep_files=true", method="DELETE")
    assert (done.status, done.body) == (204, b"")
    for again in (
        client(f"{BATCHES}/b", method="DELETE"), client(f"{BATCHES}/b/process", {}), client(f"{BATCHES}/b/jobs"),
        client(f"{BATCHES}/b", {}, "PATCH"),
    ):  # fmt: skip
        assert again.problem == (410, "not_found")


def test_jobs_are_listed_in_pages_and_by_status(client, service):
    service.create_batch(request_of(*map(str, range(5)), id="b"))
    first = client(f"{BATCHES}/b/jobs?limit=2").json
    assert ([each["index"] for each in first["data"]], first["has_more"]) == ([1, 2], True)
    for after in ("2", "b-02"):
        rest = client(f"{BATCHES}/b/jobs?after={after}").json
        assert ([each["index"] for each in rest["data"]], rest["has_more"]) == ([3, 4, 5], False)
    assert client(f"{BATCHES}/b/jobs?status=failed").json["data"] == []
    assert len(client(f"{BATCHES}/b/jobs?status=pending").json["data"]) == 5
    assert client(f"{BATCHES}/b/jobs/3").json == service.get_batch_status("b").jobs[2].model_dump(mode="json")
    for index in ("0", "6", "x", "9" * 30, "-1", "%D9%A3"):
        assert client(f"{BATCHES}/b/jobs/{index}").problem == (404, "not_found")
    for query in ("status=none", "after=x", "after=c-01", "limit=0", "x=1"):
        assert client(f"{BATCHES}/b/jobs?{query}").problem == (422, "invalid_request"), query
    assert client(f"{BATCHES}/none/jobs").problem == (404, "not_found")


def test_the_trace_of_a_request_is_the_batchs(client, service):
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    client(BATCHES, request_of("p", id="b", process=False), traceparent=trace, tracestate="a=1,b=2")
    client(BATCHES, request_of("p", id="c", process=False), traceparent="nonsense")
    assert [(event.traceparent, event.tracestate) for event in service.history("b")] == [(trace, "a=1,b=2")]
    assert service.history("c")[0].traceparent is None


UNREADABLE = {
    b"{": 400, b"": 400, b"\xff": 400, b"nul": 400, b'{"videos": NaN}': 400, b'{"videos": 1e999}': 400,
    b'{"videos": [], "videos": []}': 400, b'{"a":' * 5000 + b"1" + b"}" * 5000: 400,
    b'{"n": ' + b"9" * 5000 + b"}": 400, b"[]": 422, b'"x"': 422, b"null": 422, b"{}": 422,
    b'{"videos": []}': 422, b'{"videos": [{"prompt": "\\ud800"}]}': 422, b'{"videos": [{"prompt": "\\u0000"}]}': 422,
    b'{"videos": [{"prompt": "p"}], "nope": 1}': 422, b'{"videos": [{"prompt": "p"}], "process": 1}': 422,
    b'{"videos": [{"prompt": "p"}], "id": "../x"}': 422,
    b'{"videos": [{"prompt": "p", "input_reference": "/etc/passwd"}]}': 422,
}  # fmt: skip


def test_what_is_no_request_is_refused_and_nothing_is_left(client, service):
    for body, status in UNREADABLE.items():
        answer = client(BATCHES, body, "POST", Content_Type="application/json")
        assert answer.problem == (status, "invalid_request"), body[:80]
        assert answer.json["errors"]
        json.dumps(answer.json, ensure_ascii=False).encode()  # no lone surrogate
    assert service.list_batches() == []


def test_only_json_in_bounds_is_read(client, service):
    body = json.dumps(request_of("p")).encode()
    for kind in ("text/plain", "application/x-www-form-urlencoded", "application/json; charset=latin-1", "x"):
        assert client(BATCHES, body, "POST", Content_Type=kind).problem == (415, "invalid_request"), kind
    assert client(BATCHES, body, "POST", Content_Encoding="gzip").problem == (415, "invalid_request")
    patch = client(f"{BATCHES}/b", body, "PATCH", Content_Type="text/plain")
    assert patch.headers["Accept-Patch"] == "application/merge-patch+json"
    large = json.dumps(request_of("p", metadata={"x": "y" * service.settings.command_max_bytes})).encode()
    assert client(BATCHES, large, "POST").problem == (413, "invalid_request")
    assert service.list_batches() == []


def test_a_batch_is_named_by_the_path_alone(client, batch):
    for name in ("batch_id", "batchId"):
        answer = client(f"{BATCHES}/b/cancel", {name: "b"})
        assert answer.problem == (422, "invalid_request")
        assert answer.json["errors"][0]["field"] == f"/{name}"
    assert client(f"{BATCHES}/b/cancel", method="PUT").problem == (405, "invalid_request")


def test_a_request_is_quoted_and_nothing_is_left(client, service):
    document = request_of("one", "two", process=False, defaults={"duration": 8})
    quoted = client("/api/v1/quote", document, Idempotency_Key="q")
    assert (quoted.status, quoted.json) == (
        200,
        service.quote(request_of("one", "two", defaults={"duration": 8})).model_dump(mode="json"),
    )
    again = client("/api/v1/quote", document, Idempotency_Key="q")
    assert (again.json, again.headers["Idempotency-Replayed"]) == (quoted.json, "true")
    assert client("/api/v1/quote", document).headers["Idempotency-Replayed"] is None
    assert client("/api/v1/quote", request_of("x"), Idempotency_Key="q").problem == (422, "invalid_request")
    assert client("/api/v1/quote", {}).problem == (422, "invalid_request")
    assert service.list_batches() == []


def test_costs_are_what_the_service_says(client, service, batch):
    answer = client("/api/v1/costs?by=metadata.a&since=30d")
    assert (answer.status, answer.json["by"], answer.json["cost"]) == (200, "metadata.a", [])
    assert client("/api/v1/costs").json == service.costs().model_dump(mode="json")
    for query in ("by=x", "by=", "since=x", "since=" + "9" * 400, "since=2026-13-01", "x=1"):
        wrong = client(f"/api/v1/costs?{query}")
        assert wrong.problem == (422, "invalid_request"), query
        assert "--" not in wrong.json["detail"]


def test_a_batch_whose_files_were_removed_is_another_version(client, service):
    jobs = [a_job(index, "b", status=JobStatus.COMPLETED, video=VIDEO) for index in (1, 2)]
    storage = service._storage
    batch = a_batch("b", status="completed", completed_at=NOON, total=2, completed=2)
    service._write(lambda: put(storage, batch, jobs))
    tag = client(f"{BATCHES}/b").headers["ETag"]
    assert client(f"{BATCHES}/b", If_None_Match=tag).status == 304
    service._write(lambda: storage.jobs.save([jobs[0]._replace(video={**VIDEO, "removed_at": NOON})]))
    shown = client(f"{BATCHES}/b", If_None_Match=tag)
    assert (shown.status, "removed_at" in shown.json["jobs"][0]["video"]) == (200, True)
    later = shown.headers["ETag"]
    assert later not in {tag, None}
    assert client(f"{BATCHES}/b", If_None_Match=later).headers["ETag"] == later
    assert client(f"{BATCHES}/b", {"metadata": {"x": 1}}, "PATCH", If_Match=tag).status == 412
    changed = client(f"{BATCHES}/b", {"metadata": {"x": 1}}, "PATCH", If_Match=later)
    assert (changed.status, changed.headers["ETag"]) == (200, client(f"{BATCHES}/b").headers["ETag"])
    why = client(f"{BATCHES}/b/retry", {"job_ids": ["b-01"]}).json["detail"]
    assert "its file was removed on 20" in why
    assert "VIDEO_KEEP or prune --files" in why
    assert "nothing to retry" in client(f"{BATCHES}/b/retry", {"job_ids": ["b-02"]}).json["detail"]
