"""The provider itself: what it counts has to be right, since all else is judged by it."""

import hashlib
import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.provider.client import Provider, ProviderError
from tests.provider.options import PRICE_TELLINGS, REPLICA_CHOICES

pytestmark = pytest.mark.integration

LATENCY = 0.02

OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@pytest.fixture(scope="module")
def shared() -> Iterator[Provider]:
    with Provider(latency=LATENCY) as provider:
        yield provider


@pytest.fixture
def provider(shared: Provider) -> Provider:
    shared.reset()
    return shared


def call(method: str, url: str, body: Any = None) -> bytes:
    data = None if body is None else json.dumps(body).encode()
    return sent(url, data, {"Content-Type": "application/json"}, method)


def sent(url: str, data: bytes | None, headers: dict[str, str], method: str) -> bytes:
    request = urllib.request.Request(url, data, headers, method=method)
    with OPENER.open(request, timeout=10) as response:
        return bytes(response.read())


def create(provider: Provider, prompt: str) -> dict[str, Any]:
    return dict(json.loads(call("POST", f"{provider.base_url}/videos", {"prompt": prompt})))


def test_what_it_bills_and_how_it_tells_it(provider: Provider) -> None:
    told = {}
    provider.options(prices={"sora-2": "0.25", "*": "0.000000141"})
    for way in PRICE_TELLINGS:
        provider.options(tells_price=way)
        body = json.dumps({"prompt": f"A {way}", "seconds": "8"}).encode()
        request = urllib.request.Request(f"{provider.base_url}/videos", body, {"Content-Type": "application/json"})
        with OPENER.open(request, timeout=10) as response:
            created, header = json.load(response), response.headers.get("x-litellm-response-cost")
        provider.wait(in_flight_at_most=0)
        shown = json.loads(call("GET", f"{provider.base_url}/videos/{created['id']}"))
        told[way] = [created.get("usage"), header, shown.get("usage")]
    assert told == {
        "cost": [None, None, {"cost": 2}],
        "ticks": [None, None, {"cost_in_usd_ticks": 20_000_000_000}],
        "header": [None, "2.00", None],
    }
    assert provider.summary()["billed"] == "6.00"
    provider.options(bills_failed=False)
    call("POST", f"{provider.base_url}/videos", {"prompt": "A [fail]", "seconds": "8"})
    call("POST", f"{provider.base_url}/videos", {"prompt": "B", "model": "other", "seconds": "8"})
    provider.wait(in_flight_at_most=0)
    assert provider.summary()["billed"] == "6.000001128"
    provider.options(prices={}, tells_price=None, bills_failed=True)


def test_a_video_is_made_polled_fetched_and_deleted(provider: Provider) -> None:
    created = create(provider, "sea: a boat")
    url = f"{provider.base_url}/videos/{created['id']}"
    provider.wait(completed=1)
    content = call("GET", f"{url}/content")

    assert created["status"] == "queued"
    assert json.loads(call("GET", url))["status"] == "completed"
    assert content[4:8] == b"ftyp"
    assert json.loads(call("GET", f"{provider.base_url}/videos"))["data"][0]["id"] == created["id"]
    assert json.loads(call("DELETE", url))["deleted"] is True

    (video,) = provider.ledger()["videos"]
    assert (video["group"], video["polls"], len(video["fetched"])) == ("sea", 1, 1)
    assert video["sha256"] == hashlib.sha256(content).hexdigest()
    assert video["accepted_at"] < video["done_at"] < video["deleted_at"]


def test_the_fields_of_a_multipart_create_are_kept(provider: Provider) -> None:
    form = (
        '--edge\r\nContent-Disposition: form-data; name="prompt"\r\n\r\nzwölf\r\n'
        '--edge\r\nContent-Disposition: form-data; name="input_reference"; filename="a.png"\r\n'
        "Content-Type: image/png\r\n\r\n\r\n--edg\r\n--edge--\r\n"
    )
    headers = {"Content-Type": "multipart/form-data; boundary=edge", "Idempotency-Key": "intent-1"}
    sent(f"{provider.base_url}/videos", form.encode(), headers, "POST")

    (post,) = provider.ledger()["posts"]
    assert (post["prompt"], post["idempotency_key"], post["authorization"]) == ("zwölf", "intent-1", False)
    assert post["fields"]["input_reference"] == {
        "filename": "a.png",
        "content_type": "image/png",
        "bytes": 7,
        "sha256": hashlib.sha256(b"\r\n--edg").hexdigest(),
    }


def test_a_lost_response_counts_as_paid(provider: Provider) -> None:
    provider.fault(on="create", do="lose_response", match="boat")

    with pytest.raises(ConnectionError):
        create(provider, "a boat")

    (post,) = provider.ledger()["posts"]
    assert (post["accepted"], post["answered"], post["status"]) == (True, False, None)
    assert provider.summary()["paid_per_prompt"] == {"a boat": 1}


def test_a_lost_or_reset_request_is_not_paid(provider: Provider) -> None:
    provider.fault(on="create", do="lose_request")
    provider.fault(on="create", do="reset")

    for prompt in ("lost", "reset"):
        with pytest.raises(ConnectionError):
            create(provider, prompt)

    assert provider.summary()["paid_per_prompt"] == {}
    assert [post["fault"] for post in provider.ledger()["posts"]] == ["lose_request", "reset"]


def test_paying_again_is_noticed_unless_the_first_video_failed(provider: Provider) -> None:
    for prompt in ("twice", "twice", "a [fail]", "a [fail]"):
        create(provider, prompt)
        provider.wait(in_flight_at_most=0)

    assert provider.summary()["paid_twice"] == ["twice"]


def test_a_429_rule_answers_as_often_as_it_says(provider: Provider) -> None:
    provider.fault(on="create", do="answer", status=429, headers={"Retry-After": "7"}, times=2)

    for _ in range(2):
        with pytest.raises(urllib.error.HTTPError) as refusal:
            create(provider, "a boat")
        assert (refusal.value.code, refusal.value.headers["Retry-After"]) == (429, "7")
        refusal.value.close()
    create(provider, "a boat")

    assert [post["status"] for post in provider.ledger()["posts"]] == [429, 429, 200]
    assert provider.summary()["accepted"] == 1


@pytest.mark.parametrize(
    ("how", "status", "body"),
    [
        ({"status": 500, "set": {"status": "failed", "error": {"code": 500}}}, 500, {"status": "failed"}),
        ({"set": {"id": "another"}}, 200, {"id": "another"}),
        ({"set": {"status": "expired"}}, 200, {"status": "expired"}),
        ({"headers": {"openai-poll-after-ms": "50"}}, 200, {"status": "completed"}),
        ({"status": 404, "when": "completed"}, 404, {}),
    ],
)
def test_a_look_at_a_video_is_answered_as_the_rule_says(
    provider: Provider, how: dict[str, Any], status: int, body: dict[str, Any]
) -> None:
    video_id = create(provider, "a boat")["id"]
    provider.wait(completed=1)
    provider.fault(on="retrieve", do="answer", **how)

    code, answer = answered("GET", f"{provider.base_url}/videos/{video_id}")
    assert code == status
    assert answer.items() >= body.items()


def test_a_2xx_without_an_id_is_paid(provider: Provider) -> None:
    provider.fault(on="create", do="answer", status=202, drop=["id"])

    assert "id" not in create(provider, "a boat")
    assert provider.summary()["accepted"] == 1


def test_garbage_is_sent_as_it_is(provider: Provider) -> None:
    provider.fault(on="create", do="answer", body="<html>", accept=False)

    assert call("POST", f"{provider.base_url}/videos", {"prompt": "a boat"}) == b"<html>"
    assert provider.summary()["accepted"] == 0


def test_a_listing_can_lag_and_keep_prompts_and_pages_to_itself(provider: Provider) -> None:
    create(provider, "a boat")
    provider.fault(on="list", do="answer", lag=60)
    provider.fault(on="list", do="answer", drop=["prompt"], paging=False)

    lagging, silent = (json.loads(call("GET", f"{provider.base_url}/videos")) for _ in range(2))

    assert lagging["data"] == []
    assert silent.keys() == {"object", "data"}
    assert "prompt" not in silent["data"][0]


def test_a_listing_has_pages_newest_first(provider: Provider) -> None:
    ids = [create(provider, f"number {n}")["id"] for n in range(3)]
    first = json.loads(call("GET", f"{provider.base_url}/videos?limit=2"))
    second = json.loads(call("GET", f"{provider.base_url}/videos?limit=2&after={first['last_id']}"))

    assert [video["id"] for video in first["data"] + second["data"]] == ids[::-1]
    assert (first["has_more"], second["has_more"]) == (True, False)


def test_content_can_be_cut_short(provider: Provider) -> None:
    url = finished_content(provider)
    provider.fault(on="content", do="short")

    with pytest.raises(Exception, match="IncompleteRead"):
        call("GET", url)
    assert provider.summary()["fetched"] == 0
    assert len(call("GET", url)) == 4096


def test_content_that_stalls_goes_on_when_released(provider: Provider) -> None:
    url = finished_content(provider)
    provider.fault(on="content", do="stall", bytes=10)

    with ThreadPoolExecutor() as threads:
        content = threads.submit(call, "GET", url)
        provider.wait(hanging=1)
        provider.release("requests")
        assert len(content.result(10)) == 4096


def test_a_key_that_a_redirect_leaks_is_noted(provider: Provider) -> None:
    url = finished_content(provider)
    provider.fault(on="content", do="redirect")

    assert len(sent(url, None, {"Authorization": "Bearer secret"}, "GET")) == 4096

    assert provider.summary()["leaked_authorizations"] == 1  # urllib does leak it
    assert provider.summary()["fetched"] == 1


@pytest.mark.parametrize("accept", [True, False])
def test_a_create_that_hangs_is_paid_before_or_after(provider: Provider, *, accept: bool) -> None:
    provider.fault(on="create", do="hang", accept=accept)

    with ThreadPoolExecutor() as threads:
        created = threads.submit(create, provider, "a boat")
        provider.wait(hanging=1)
        before = provider.summary()["accepted"]
        provider.release("requests")
        created.result(10)

    assert (before, provider.summary()["accepted"]) == (int(accept), 1)


def test_the_most_videos_in_flight_are_counted_in_all_and_by_group(provider: Provider) -> None:
    provider.hold()
    for prompt in ("a: 1", "a: 2", "b: 1"):
        create(provider, prompt)
    assert provider.finish(match="a: 1")
    create(provider, "b: 2")
    provider.release()
    provider.wait(in_flight_at_most=0)

    summary = provider.summary()
    assert summary["max_in_flight"] == 3
    assert summary["max_in_flight_per_group"] == {"a": 2, "b": 2}


def test_words_in_the_prompt_decide_that_a_video_fails(provider: Provider) -> None:
    create(provider, "a [moderation] boat")
    ledger = provider.wait_until(lambda ledger: ledger["videos"][0]["done_at"])

    assert ledger["videos"][0]["status"] == "failed"
    assert ledger["videos"][0]["error"]["code"] == "moderation_blocked"


def test_a_forgotten_video_is_unknown_and_still_paid(provider: Provider) -> None:
    video_id = create(provider, "a boat")["id"]
    provider.forget()

    assert answered("GET", f"{provider.base_url}/videos/{video_id}")[0] == 404
    assert provider.wait(accepted=1, in_flight_at_most=0)


@pytest.mark.parametrize("choice", REPLICA_CHOICES)
def test_each_replica_has_its_own_videos(choice: str) -> None:
    with Provider(replicas=2, replica_choice=choice, latency=60) as provider:
        ids = [create(provider, f"video {number}")["id"] for number in range(24)]
        replicas = {video["id"]: video["replica"] for video in provider.ledger()["videos"]}
        listings = [json.loads(call("GET", f"{provider.base_url}/videos"))["data"] for _ in range(24)]
        looks = [known(provider, ids[0]) for _ in range(24)]

        assert set(replicas.values()) == {0, 1}
        of_each = [{id_ for id_, at in replicas.items() if at == replica} for replica in (0, 1)]
        assert {frozenset(video["id"] for video in page) for page in listings} == set(map(frozenset, of_each))
        assert set(looks) == {True, False}
        assert provider.summary()["accepted"] == 24


def test_all_requests_of_a_connection_get_to_the_same_replica_if_they_stick() -> None:
    with Provider(replicas=3, replica_choice="sticky", latency=60) as provider:
        for _ in range(16):
            connection = http.client.HTTPConnection("127.0.0.1", provider.port)
            connection.request("POST", "/v1/videos", '{"prompt": "a"}', {"Content-Type": "application/json"})
            made = json.load(connection.getresponse())
            for _ in range(3):
                connection.request("GET", f"/v1/videos/{made['id']}")
                assert json.load(connection.getresponse())["id"] == made["id"]
            connection.close()
        assert len({video["replica"] for video in provider.ledger()["videos"]}) > 1


def known(provider: Provider, video_id: str) -> bool:
    try:
        call("GET", f"{provider.base_url}/videos/{video_id}")
    except urllib.error.HTTPError as error:
        with error:
            return error.code != 404
    return True


def test_the_ledger_and_the_port_outlive_a_kill() -> None:
    with Provider(latency=LATENCY, api_key="sk-right") as provider:
        provider.fault(on="create", do="answer", status=503)
        assert answered("POST", f"{provider.base_url}/videos")[0] == 401
        provider.kill()
        with pytest.raises(urllib.error.URLError):
            answered("GET", f"{provider.base_url}/videos")
        provider.restart()

        assert [post["status"] for post in provider.ledger()["posts"]] == [401]
        assert provider.faults()[0]["status"] == 503


def test_videos_in_the_making_go_on_after_a_kill(provider: Provider) -> None:
    provider.hold()
    create(provider, "a boat")
    provider.restart()
    provider.release()
    assert provider.wait(completed=1)["posts"] == 1

    create(provider, "a boat")
    provider.restart(forget=True)
    assert provider.summary()["in_flight"] == 0


@pytest.mark.parametrize(
    "rule",
    [
        {"on": "creat", "do": "reset"},
        {"on": "create", "do": "answer", "stauts": 500},
        {"on": "create", "do": "short"},
        {"on": "list", "do": "answer", "match": "boat"},
        {"on": "create", "do": "lose_request", "drop": ["id"]},
    ],
)
def test_a_rule_that_says_nothing_known_is_refused(provider: Provider, rule: dict[str, Any]) -> None:
    with pytest.raises(ProviderError):
        provider.fault(**rule)


def finished_content(provider: Provider) -> str:
    video_id = create(provider, "a boat")["id"]
    provider.wait(completed=1)
    return f"{provider.base_url}/videos/{video_id}/content"


def answered(method: str, url: str) -> tuple[int, dict[str, Any]]:
    try:
        return 200, json.loads(call(method, url))
    except urllib.error.HTTPError as refusal:
        with refusal:
            return refusal.code, json.loads(refusal.read())
