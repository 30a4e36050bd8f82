"""The simulator over HTTP, as OpenAI's hosted API."""

import ssl
from contextlib import ExitStack
from email.utils import parsedate_to_datetime
from io import BytesIO

import httpx2
import pytest

from actors.simulator import SimulatorOptions, films
from tests.servers.simulator import simulator_in_thread

NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Without certificates, since loading them takes a test longer than all the rest, and this is plain HTTP."""

QUICK = {"latency": (0, 0), "content_bytes": 1000}
ENDLESS = {"latency": (1000, 1000), "content_bytes": 1000}
VIDEO_FIELDS = {
    "id",
    "object",
    "model",
    "status",
    "progress",
    "created_at",
    "completed_at",
    "expires_at",
    "prompt",
    "size",
    "seconds",
    "remixed_from_video_id",
    "error",
    "simulated",
}


@pytest.fixture
def serve():
    """Start a simulator, and give it with a client of it."""
    with ExitStack() as stack:

        def start(**options):
            simulator, url = stack.enter_context(simulator_in_thread(SimulatorOptions(**options)))
            return simulator, stack.enter_context(httpx2.Client(base_url=url, verify=NO_TLS))

        yield start


@pytest.fixture
def client(serve):
    return serve(**QUICK)[1]


def create(client, prompt="a lake", **fields):
    return client.post("/videos", json={"prompt": prompt, **fields}).raise_for_status().json()


def test_a_create_is_answered_with_a_queued_video_and_the_defaults(client):
    video = create(client)
    assert video.keys() == VIDEO_FIELDS
    assert video["id"].startswith("video_")
    defaults = {"status": "queued", "progress": 0, "model": "sora-2", "seconds": "4", "size": "720x1280"}
    assert video.items() >= defaults.items()
    assert video.items() >= {"object": "video", "prompt": "a lake", "error": None, "simulated": True}.items()


def test_a_completed_video_says_when_it_was_completed_and_when_it_expires(client):
    video = client.get(f"/videos/{create(client)['id']}").json()
    assert (video["status"], video["progress"]) == ("completed", 100)
    assert video["expires_at"] - video["completed_at"] == 3600


def test_a_running_video_is_seen_in_the_list_and_has_no_content(serve):
    _, client = serve(**ENDLESS)
    video = create(client)
    assert client.get("/videos").json()["data"][0] == video
    answer = client.get(f"/videos/{video['id']}/content")
    assert (answer.status_code, answer.json()["error"]["type"]) == (404, "invalid_request_error")


@pytest.mark.parametrize("kind", ["json", "data", "files"])
def test_creates_are_read_from_json_and_from_both_kinds_of_form(client, kind):
    fields = {"prompt": "naïve", "seconds": "7", "size": "1280x720", "model": "my-model"}
    body = {name: (None, value) for name, value in fields.items()} if kind == "files" else fields
    video = client.post("/videos", **{kind: body}).raise_for_status().json()
    assert video.items() >= fields.items()


def test_a_number_of_seconds_is_told_as_text(client):
    assert create(client, seconds=600)["seconds"] == "600"


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"prompt": None}, "prompt", "missing_required_parameter"),
        ({"prompt": ""}, "prompt", "empty_string"),
        ({"prompt": "x" * 32001}, "prompt", "string_above_max_length"),
        ({"prompt": 5}, "prompt", "invalid_type"),
        ({"seconds": "0"}, "seconds", "invalid_value"),
        ({"seconds": "601"}, "seconds", "invalid_value"),
        ({"seconds": "4.5"}, "seconds", "invalid_value"),
        ({"seconds": 4.0}, "seconds", "invalid_type"),
        ({"seconds": True}, "seconds", "invalid_type"),
        ({"size": "720"}, "size", "invalid_value"),
        ({"size": "721x1280"}, "size", "invalid_value"),
        ({"size": "62x64"}, "size", "invalid_value"),
        ({"size": "9999x720"}, "size", "invalid_value"),
        ({"input_reference": "a.png"}, "input_reference", "invalid_type"),
        ({"input_reference": {}}, "input_reference", "invalid_value"),
        ({"input_reference": {"file_id": "a", "image_url": "b"}}, "input_reference", "invalid_value"),
    ],
)
def test_a_wrong_field_is_refused_by_name(serve, fields, param, code):
    simulator, client = serve(**QUICK)
    answer = client.post("/videos", json={"prompt": "a lake"} | fields)
    error = answer.json()["error"]
    assert (answer.status_code, error["type"]) == (400, "invalid_request_error")
    assert (error["param"], error["code"]) == (param, code)
    assert simulator.creates == 0


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"{", "application/json"),
        (b"[1]", "application/json"),
        (b"\xff", "application/json"),
        (b"[" * 100_000, "application/json"),
        (b"nothing of the kind", "multipart/form-data; boundary=x"),
        (b"nothing of the kind", "multipart/form-data"),
        (b"\x00\x01", "image/png"),
    ],
)
def test_a_body_that_cannot_be_read_is_refused(client, content, kind):
    answer = client.post("/videos", content=content, headers={"Content-Type": kind})
    assert answer.status_code == 400
    assert answer.json()["error"]["message"]


@pytest.mark.parametrize(("kind", "status"), [("image/png", 200), ("image/webp", 200), ("text/plain", 400)])
def test_a_reference_is_a_picture(client, kind, status):
    files = {"prompt": (None, "a lake"), "input_reference": ("a.png", BytesIO(b"\x89PNG"), kind)}
    assert client.post("/videos", files=files).status_code == status


def test_strict_takes_only_the_hosted_seconds(serve):
    _, client = serve(**QUICK, strict=True)
    assert [client.post("/videos", json={"prompt": "x", "seconds": s}).status_code for s in ("8", "10", 8)] == [
        200,
        400,
        400,
    ]


def test_a_create_that_comes_twice_makes_two_videos_whatever_its_idempotency_key(serve):
    simulator, client = serve(**QUICK)
    answers = [client.post("/videos", json={"prompt": "x"}, headers={"Idempotency-Key": "same"}) for _ in range(2)]
    assert len({answer.json()["id"] for answer in answers}) == 2
    assert simulator.creates == 2


def test_the_list_is_paged_in_both_orders(client):
    made = [create(client)["id"] for _ in range(5)]
    page = client.get("/videos", params={"limit": 2, "order": "asc", "after": made[0]}).json()
    assert [video["id"] for video in page["data"]] == made[1:3]
    assert (page["object"], page["first_id"], page["last_id"]) == ("list", made[1], made[2])
    assert page["has_more"]
    last = client.get("/videos", params={"limit": 3, "after": made[3]}).json()
    assert [video["id"] for video in last["data"]] == made[2::-1]
    assert not last["has_more"]


def test_the_list_has_20_videos_by_default_newest_first(client):
    made = [create(client)["id"] for _ in range(21)]
    page = client.get("/videos").json()
    assert [video["id"] for video in page["data"]] == made[:0:-1]
    assert page["has_more"]


def test_an_empty_list_has_no_ids(client):
    empty = {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}
    assert client.get("/videos").json() == empty


@pytest.mark.parametrize("query", [{"limit": "101"}, {"limit": "-1"}, {"order": "up"}, {"after": "video_no"}])
def test_a_list_query_that_makes_no_sense_is_refused(client, query):
    answer = client.get("/videos", params=query)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, next(iter(query)))


def test_a_finished_video_is_deleted_with_its_content(client):
    video_id = create(client)["id"]
    client.get(f"/videos/{video_id}/content").raise_for_status()
    gone = {"id": video_id, "deleted": True, "object": "video.deleted"}
    assert client.delete(f"/videos/{video_id}").json() == gone
    assert [client.get(f"/videos/{video_id}{end}").status_code for end in ("", "/content")] == [404, 404]
    assert client.delete(f"/videos/{video_id}").status_code == 404


def test_a_running_video_is_not_deleted(serve):
    _, client = serve(**ENDLESS)
    video_id = create(client)["id"]
    assert client.delete(f"/videos/{video_id}").status_code == 409
    assert client.get(f"/videos/{video_id}").status_code == 200


@pytest.mark.parametrize(
    ("variant", "kind", "beginning"),
    [
        ("video", "video/mp4", b"\x00\x00\x00\x18ftyp"),
        ("thumbnail", "image/webp", b"RIFF"),
        ("spritesheet", "image/jpeg", b"\xff\xd8"),
    ],
)
def test_contents_have_exactly_the_asked_bytes_and_begin_as_their_kind_does(client, variant, kind, beginning):
    answer = client.get(f"/videos/{create(client)['id']}/content", params={"variant": variant})
    assert answer.headers["Content-Type"] == kind
    assert answer.headers["Content-Length"] == "1000"
    assert answer.content.startswith(beginning)


def test_contents_of_two_videos_differ(client):
    first, second = (client.get(f"/videos/{create(client)['id']}/content").content for _ in range(2))
    assert first != second


def test_a_part_of_a_content_can_be_fetched(client):
    path = f"/videos/{create(client)['id']}/content"
    whole = client.get(path)
    part = client.get(path, headers={"Range": "bytes=10-19", "If-Range": whole.headers["ETag"]})
    assert (part.status_code, part.content) == (206, whole.content[10:20])


def test_an_unknown_variant_is_refused(client):
    answer = client.get(f"/videos/{create(client)['id']}/content", params={"variant": "0"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "variant")


def test_the_film_is_drawn_once_and_the_same_for_all(serve):
    pytest.importorskip("av")
    _, client = serve(latency=(0, 0))
    path = f"/videos/{create(client, seconds=1, size='320x180')['id']}/content"
    first, second = client.get(path), client.get(path)
    assert first.headers["ETag"] == second.headers["ETag"]
    assert int(first.headers["Content-Length"]) == len(first.content)
    assert first.content == second.content


def test_a_drawing_that_fails_is_a_server_error_and_is_tried_again(serve, monkeypatch):
    _, client = serve(latency=(0, 0))
    path = f"/videos/{create(client)['id']}/content"

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setitem(films.WRITERS, "video", fail)
    answer = client.get(path)
    assert (answer.status_code, answer.json()["error"]["type"]) == (500, "server_error")
    monkeypatch.setitem(films.WRITERS, "video", lambda _film, path, _stopped: path.write_bytes(b"film"))
    assert client.get(path).content == b"film"


def test_a_moderated_word_fails_the_job(serve):
    _, client = serve(**QUICK, moderation=("Gun", "blood bath"))
    videos = [create(client, prompt) for prompt in ("a GUN!", "a blood bath", "a begun lake")]
    errors = [client.get(f"/videos/{video['id']}").json()["error"] for video in videos]
    codes = [error and error["code"] for error in errors]
    assert codes == ["moderation_blocked", "moderation_blocked", None]
    assert errors[0]["message"] == "Your request was blocked by our moderation system."


def test_a_failure_rate_of_one_fails_every_job(serve):
    _, client = serve(**QUICK, failure_rate=1.0)
    video = client.get(f"/videos/{create(client)['id']}").json()
    assert (video["status"], video["completed_at"], video["error"]["code"]) == (
        "failed",
        None,
        "video_generation_failed",
    )
    assert client.get(f"/videos/{video['id']}/content").status_code == 404


def test_creates_above_the_rate_are_told_when_to_come_again(serve):
    simulator, client = serve(**QUICK, rate_limit=0.01)
    first, second = (client.post("/videos", json={"prompt": "x"}) for _ in range(2))
    assert (first.status_code, second.status_code) == (200, 429)
    assert second.json()["error"]["code"] == "rate_limit_exceeded"
    assert 99 <= int(second.headers["Retry-After"]) <= 100
    assert client.get("/videos").status_code == 200
    assert simulator.creates == 1


@pytest.mark.parametrize("header", [None, "Bearer", "Bearer wrong", "Basic key", "Bearer kéy"])
def test_without_the_key_nothing_is_answered(serve, header):
    _, client = serve(**QUICK, api_key="key")
    headers = {"Authorization": header.encode()} if header else {}
    for path in ("/videos", "/models", "/nowhere"):
        answer = client.get(path, headers=headers)
        assert (answer.status_code, answer.json()["error"]["type"]) == (401, "invalid_request_error")
    assert client.get("/videos", headers={"Authorization": "Bearer key"}).status_code == 200


def test_a_completed_video_can_be_remixed(client):
    source = create(client, seconds="8", size="1280x720")
    remix = client.post(f"/videos/{source['id']}/remix", json={"prompt": "at night"}).json()
    expected = {
        "prompt": "at night",
        "seconds": "8",
        "size": "1280x720",
        "remixed_from_video_id": source["id"],
    }
    assert remix.items() >= expected.items()
    assert remix["id"] != source["id"]


def test_a_running_video_cannot_be_remixed(serve):
    _, client = serve(**ENDLESS)
    path = f"/videos/{create(client)['id']}/remix"
    assert client.post(path, json={"prompt": "at night"}).status_code == 400


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nowhere", 404), ("GET", "/videos/video_no", 404), ("PUT", "/videos", 405)],
)
def test_what_is_not_there_is_refused_in_the_usual_shape(client, method, path, status):
    answer = client.request(method, path)
    assert answer.status_code == status
    assert answer.json()["error"].keys() == {"message", "type", "param", "code"}


def test_models_are_listed(client):
    assert "sora-2" in [model["id"] for model in client.get("/models").json()["data"]]


@pytest.mark.parametrize("path", ["/videos", "/nowhere"])
def test_every_answer_says_that_it_is_simulated_and_when(client, path):
    answer = client.get(path)
    assert answer.headers["X-Simulated"] == "true"
    assert parsedate_to_datetime(answer.headers["Date"])


def test_the_most_jobs_in_flight_are_remembered(serve):
    simulator, client = serve(**ENDLESS)
    for _ in range(3):
        create(client)
    assert simulator.max_in_flight == 3
