"""The API: what is read of batches."""

from actors.errors import StorageError
from actors.service import BatchService
from tests.actors.web.conftest import request_of


def test_batches_are_listed_newest_first_in_pages(client, service):
    for number in range(5):
        service.create_batch(request_of("p", id=f"b{number}", metadata={"team": "blue" if number % 2 else "red"}))
    first = client("/api/v1/batches?limit=2").json
    assert [each["id"] for each in first["data"]] == ["b4", "b3"]
    assert first["has_more"] is True
    assert first["data"][0] == service.list_batches(limit=1)[0].model_dump(mode="json")
    last = client("/api/v1/batches?limit=3&after=b3").json
    assert ([each["id"] for each in last["data"]], last["has_more"]) == (["b2", "b1", "b0"], False)
    blue = client("/api/v1/batches?metadata.team=blue&status=pending").json
    assert [each["id"] for each in blue["data"]] == ["b3", "b1"]
    service.create_batch(request_of("p", id="n", metadata={"n": 3, "yes": True, "text": "3", "none": None}))
    for query in ("metadata.n=3", "metadata.yes=true", "metadata.text=3"):
        assert [each["id"] for each in client(f"/api/v1/batches?{query}").json["data"]] == ["n"], query
    for query in (
        "metadata.n=03",
        "metadata.yes=1",
        "metadata.n=" + "9" * 5000,
        "metadata.none=null",
        "metadata.n=NaN",
    ):
        assert client(f"/api/v1/batches?{query}").json["data"] == [], query
    assert client("/api/v1/batches?status=completed").json == {"data": [], "has_more": False}


NO_QUERIES = [
    "limit=0", "limit=1001", "limit=x", "limit=-1", "limit=1e1", "limit=" + "9" * 5000, "status=", "status=none",
    "foo=1", "metadata.=x", "metadata=x", "limit=1&limit=2", "status=%00", "metadata.a%00=x",
]  # fmt: skip


def test_a_query_that_says_nothing_is_refused(client):
    for query in NO_QUERIES:
        answer = client(f"/api/v1/batches?{query}")
        assert answer.problem == (422, "invalid_request"), query
        assert answer.json["errors"]


def test_a_wrong_parameter_is_named(client, service):
    service.create_batch(request_of("one", id="b"))
    for path, name in (
        ("batches?status=nope", "status"), ("batches?limit=x", "limit"), ("batches/b/jobs?status=nope", "status"),
        ("batches/b/jobs?after=x", "after"), ("costs?by=x", "by"), ("costs?since=zz", "since"),
    ):  # fmt: skip
        (error,) = client(f"/api/v1/{path}").json["errors"]
        assert error["field"] == f"?{name}", path
        assert error["message"] == f"{name}: must be {error['expected']} (got {path.rpartition('=')[2]!r})"


def test_no_path_of_this_machine_is_told(settings, listen, tmp_path, caplog):
    prices = tmp_path / "prices.json"
    prices.write_text("{}")
    with BatchService(settings(sora_prices=str(prices)), simulate=True) as service:
        prices.unlink()
        answer = listen(service)("/api/v1/quote", request_of("one"))
        page = listen(service).form("/new/quote", prompts="one")
        made = listen(service).form("/new", prompts="one", do="check")
    assert answer.problem == (503, "unavailable")
    assert answer.json["detail"].endswith("the service's log says which")
    assert b"prices.json" not in answer.body + page.body + made.body
    assert "log says which" in page.json["problem"]
    assert str(prices) in "".join(str(getattr(record, "error", "")) for record in caplog.records)


def test_an_unknown_place_in_the_list_is_named(client):
    assert client("/api/v1/batches?after=gone").problem == (404, "not_found")


def test_a_batch_is_shown_with_its_jobs(client, service):
    batch = service.create_batch(request_of("one", "two", id="b"))
    assert client("/api/v1/batches/b").json == batch.model_dump(mode="json")


def test_an_unknown_batch_is_404_and_names_no_database(client):
    for batch_id in ("none", "a%00b", "..%2F..", "a" * 500, "%ED%A0%80", "'", "%7B%7D"):
        answer = client(f"/api/v1/batches/{batch_id}")
        assert answer.problem == (404, "not_found")
        assert b".db" not in answer.body


def test_a_deleted_batch_is_gone(client, service):
    service.create_batch(request_of("p", id="b"))
    service.cancel_batch("b")
    service.delete_batch("b")
    assert client("/api/v1/batches/b").problem == (410, "not_found")


def test_a_database_that_is_away_is_503_and_is_not_named(client, service, monkeypatch):
    def away(*_, **__):
        raise StorageError("the database /secret/place is locked")

    monkeypatch.setattr(service, "list_batches", away)
    answer = client("/api/v1/batches")
    assert answer.problem == (503, "storage")
    assert answer.headers["Retry-After"] == "1"
    assert b"/secret" not in answer.body


def test_a_mistake_of_ours_is_500_and_is_logged_with_the_requests_id(client, service, monkeypatch, caplog):
    monkeypatch.setattr(service, "list_batches", lambda *_, **__: 1 / 0)
    answer = client("/api/v1/batches", X_Request_Id="r-1")
    assert answer.problem == (500, "internal")
    assert "r-1" in answer.json["detail"]
    assert b"division" not in answer.body
    assert any(each.exc_info and each.request_id == "r-1" for each in caplog.records)
