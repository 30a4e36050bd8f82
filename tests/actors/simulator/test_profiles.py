"""The simulator over HTTP, as vLLM-Omni and as SGLang: what they do otherwise."""

import re
import ssl
import uuid
from contextlib import ExitStack

import httpx2
import pytest

from actors.simulator import PROFILES, SimulatorOptions
from actors.simulator.fields import Page
from actors.simulator.jobs import Job, Ledger
from tests.servers.simulator import simulator_in_thread

NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Without certificates, since loading them takes a test longer than all the rest, and this is plain HTTP."""


@pytest.fixture
def serve():
    """Start a simulator with a profile, and give a client of it and the simulator."""
    with ExitStack() as stack:

        def start(profile, **options):
            settings = {"latency": (0, 0), "content_bytes": 64, "profile": profile} | options
            simulator, url = stack.enter_context(simulator_in_thread(SimulatorOptions(**settings)))
            return simulator, stack.enter_context(httpx2.Client(base_url=url, verify=NO_TLS))

        yield start


def create(client, prompt="a lake"):
    return client.post("/videos", files={"prompt": (None, prompt)}).raise_for_status().json()


@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_takes_a_form_and_gives_the_video(serve, profile):
    _, client = serve(profile)
    video = create(client)
    assert video["simulated"] is True
    assert client.get(f"/videos/{video['id']}").json()["status"] == "completed"
    assert client.get(f"/videos/{video['id']}/content").headers["Content-Type"] == "video/mp4"


@pytest.mark.parametrize("profile", ["vllm-omni", "sglang"])
def test_an_unknown_after_gives_an_empty_page(serve, profile):
    _, client = serve(profile)
    create(client)
    page = client.get("/videos", params={"after": "no"}).json()
    assert (page["data"], page["has_more"]) == ([], False)


@pytest.mark.parametrize("profile", ["vllm-omni", "sglang"])
@pytest.mark.parametrize("order", ["asc", "desc"])
def test_videos_of_one_second_are_listed_oldest_first_in_both_orders(serve, profile, order):
    _, client = serve(profile)
    made = [create(client, prompt)["id"] for prompt in "abcd"]
    listed = client.get("/videos", params={"order": order}).json()["data"]
    seconds = sorted({video["created_at"] for video in listed}, reverse=order == "desc")
    by_second = [[video["id"] for video in listed if video["created_at"] == second] for second in seconds]
    assert [video["id"] for video in listed] == [video_id for group in by_second for video_id in group]
    assert all(group == sorted(group, key=made.index) for group in by_second)
    after = client.get("/videos", params={"order": order, "after": listed[1]["id"]}).json()["data"]
    assert after == listed[2:]


def test_a_second_is_the_same_for_all_that_come_in_it():
    ledger = Ledger()
    for number, accepted_at in enumerate((1000.1, 1000.9, 1001.0), start=1):
        ledger.accept(
            Job(
                number=number, id=f"video_{number}", prompt="a", model="m", seconds=4, size=None,
                accepted_at=accepted_at, latency=0.0,
            ),
            accepted_at,
        )  # fmt: skip
    newest = Page(after=None, limit=None, newest_first=True)
    assert [job.number for job in ledger.page(newest, by_second=True)[0]] == [3, 1, 2]
    assert [job.number for job in ledger.page(newest)[0]] == [3, 2, 1]


def test_vllm_omni_lists_all_unless_it_is_told_how_many_and_none_if_told_so(serve):
    _, client = serve("vllm-omni")
    assert client.get("/videos", params={"limit": 0}).json()["has_more"] is False
    for _ in range(21):
        create(client)
    assert len(client.get("/videos").json()["data"]) == 21
    nothing = {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": True}
    assert client.get("/videos", params={"limit": 0}).json() == nothing


@pytest.mark.parametrize("profile", ["vllm-omni", "sglang"])
def test_there_are_no_remixes(serve, profile):
    _, client = serve(profile)
    assert client.post(f"/videos/{create(client)['id']}/remix", json={"prompt": "x"}).status_code == 404


@pytest.mark.parametrize("profile", ["vllm-omni", "sglang"])
def test_a_missing_key_is_answered_in_one_word(serve, profile):
    _, client = serve(profile, api_key="key")
    answer = client.get("/videos")
    assert (answer.status_code, answer.json()) == (401, {"error": "Unauthorized"})


def test_vllm_omni_does_not_read_json(serve):
    simulator, client = serve("vllm-omni")
    answer = client.post("/videos", json={"prompt": "a lake"})
    error = answer.json()["error"]
    assert (answer.status_code, error["type"], error["param"]) == (400, "Bad Request", "body.prompt")
    assert error["code"] == 400
    assert simulator.creates == 0


def test_vllm_omni_words_a_video_in_its_own_way(serve):
    _, client = serve("vllm-omni")
    video = create(client)
    assert re.fullmatch("video_gen_[0-9a-f]{32}", video["id"])
    assert (video["size"], video["expires_at"], video["media_type"]) == (None, None, "video/mp4")
    assert (video["quality"], video["fps"], video["num_frames"], video["duration_s"]) == ("default", 24.0, None, None)
    assert (video["metrics"], video["stage_durations"], video["peak_memory_mb"], video["action"]) == (
        None,
        {},
        0.0,
        None,
    )


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"seconds": "8"}, {"fps": 24.0, "num_frames": 192, "duration_s": 8.0}),
        ({"fps": "12", "num_frames": "9"}, {"fps": 12.0, "num_frames": 9, "duration_s": 0.75, "seconds": "4"}),
        ({"quality": "high"}, {"quality": "high"}),
        ({"model": "sora-2"}, {"model": "sora-2"}),
    ],
)
def test_vllm_omni_tells_what_it_made_of_the_fields(serve, fields, told):
    _, client = serve("vllm-omni")
    video = client.post("/videos", files=form(prompt="a lake", **fields)).raise_for_status().json()
    assert video.items() >= told.items()


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"seconds": "0"}, {"seconds": "4"}),
        ({"fps": "12", "num_frames": "9"}, {"seconds": "1"}),
        ({"size": "1280x720", "width": "640"}, {"size": "640x720"}),
        ({"extra_body": '{"size": "640x480", "fps": 12}'}, {"size": "640x480", "seconds": "4"}),
        ({"model": "any"}, {"model": "any"}),
    ],
)
def test_sglang_tells_what_it_made_of_the_fields(serve, fields, told):
    _, client = serve("sglang")
    video = client.post("/videos", files=form(prompt="a lake", **fields)).raise_for_status().json()
    assert video.items() >= told.items()


@pytest.mark.parametrize("profile", ["vllm-omni", "sglang"])
def test_fields_that_these_servers_do_not_tell_back_are_not_told_back(serve, profile):
    _, client = serve(profile)
    plain = create(client)
    asked = form(prompt="a lake", seed="7", negative_prompt="blur", nonsense="1", **{"input_reference[file_id]": "f"})
    assert client.post("/videos", files=asked).raise_for_status().json().keys() == plain.keys()


def form(**fields):
    return {name: (None, value) for name, value in fields.items()}


MISSING = "1 validation error:\n  {'type': 'missing', 'loc': 'body.prompt', 'msg': 'Field required', 'input': 'None'}"
NO_NUMBER = "Input should be a valid integer, unable to parse string as an integer"


@pytest.mark.parametrize(
    ("fields", "message", "kind", "param"),
    [
        ({}, MISSING, "Bad Request", "body.prompt"),
        ({"prompt": ""}, MISSING, "Bad Request", "body.prompt"),
        (
            {"prompt": "x", "seconds": "4.5"},
            (
                "1 validation error:\n  {'type': 'string_pattern_mismatch', 'loc': 'body.seconds', 'msg': \"String should "
                "match pattern '^[1-9]\\\\d*$'\", 'input': '4.5', 'ctx': {'pattern': '^[1-9]\\\\d*$'}}"
            ),
            "Bad Request",
            "body.seconds",
        ),
        (
            {"prompt": "x", "fps": "abc"},
            (
                "1 validation error:\n  {'type': 'float_parsing', 'loc': 'body.fps', 'msg': 'Input should be a valid number, "
                "unable to parse string as a number', 'input': 'abc'}"
            ),
            "Bad Request",
            "body.fps",
        ),
        (
            {"prompt": "x", "model": "nope"},
            "Model mismatch: request specifies 'nope' but server is running 'sora-2'.",
            "Bad Request",
            None,
        ),
        ({"prompt": "x", "lora": "{"}, "Invalid JSON in form field.", "Bad Request", None),
        ({"prompt": "x", "lora": "[1]"}, "Invalid JSON in form field: expected dict, got list.", "Bad Request", None),
    ],
)
def test_vllm_omni_refuses_as_the_real_one_was_seen_to(serve, fields, message, kind, param):
    simulator, client = serve("vllm-omni")
    answer = client.post("/videos", files=form(**fields) or {"x": (None, "x")})
    assert answer.json() == {"error": {"message": message, "type": kind, "param": param, "code": 400}}
    assert (answer.status_code, simulator.creates) == (400, 0)


def test_vllm_omni_finds_bounds_only_in_the_whole_request(serve):
    _, client = serve("vllm-omni")
    error = client.post("/videos", files=form(prompt="x", seed="99999999999999999999")).json()["error"]
    assert (error["type"], error["param"], error["code"]) == ("BadRequestError", None, 400)
    assert "seed\n  Input should be less than or equal to 9223372036854775807" in error["message"]


def test_the_served_model_can_be_named(serve):
    _, client = serve("vllm-omni", model="wan-video")
    assert create(client)["model"] == "wan-video"
    assert client.post("/videos", files=form(prompt="x", model="sora-2")).status_code == 400
    assert [model["id"] for model in client.get("/models").json()["data"]] == ["wan-video"]


@pytest.mark.parametrize(
    ("fields", "status", "detail"),
    [
        ({}, 400, "prompt is required"),
        ({"prompt": "x", "size": "big"}, 400, "size must be formatted as positive WIDTHxHEIGHT"),
        ({"prompt": "x", "num_frames": "0"}, 400, "num_frames must be positive"),
        ({"prompt": "x", "extra_body": "{"}, 400, "extra_body is not valid JSON"),
        (
            {"prompt": "x", "seconds": "4.5"},
            422,
            [{"type": "int_parsing", "loc": ["body", "seconds"], "msg": NO_NUMBER, "input": "4.5"}],
        ),
    ],
)
def test_sglang_refuses_as_the_real_one_was_seen_to(serve, fields, status, detail):
    simulator, client = serve("sglang")
    answer = client.post("/videos", files=form(**fields) or {"x": (None, "x")})
    assert (answer.status_code, answer.json(), simulator.creates) == (status, {"detail": detail}, 0)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"json": []}, "prompt\n  Field required"),
        ({"content": b'{"prompt":'}, "prompt\n  Field required"),
        ({"json": {"prompt": "x", "input_reference": {"image_url": "data:,"}}}, "Input should be a valid string"),
        ({"json": {"prompt": "x", "seconds": 4.5}}, "seconds\n  Input should be a valid integer"),
        ({"json": {"prompt": "x", "extra_body": "{"}}, "Expecting property name"),
    ],
)
def test_sglang_refuses_json_that_does_not_fit(serve, body, words):
    _, client = serve("sglang")
    answer = client.post("/videos", **body)
    detail = answer.json()["detail"]
    assert (answer.status_code, detail.startswith("Invalid request body: "), words in detail) == (400, True, True)


def test_sglang_takes_a_picture_as_text_in_json_and_as_a_file_in_a_form(serve):
    _, client = serve("sglang")
    body = {"prompt": "x", "input_reference": "data:image/png;base64,AAAA", "seed": [1, 2], "n": 3}
    video_id = client.post("/videos", json=body).raise_for_status().json()["id"]
    assert client.get(f"/videos/{video_id}").json()["num_outputs"] == 3
    client.post(
        "/videos", files=form(prompt="x") | {"input_reference": ("a.png", b"x", "image/png")}
    ).raise_for_status()


@pytest.mark.parametrize(
    ("profile", "query", "status", "entry"),
    [
        (
            "vllm-omni",
            {"limit": "101"},
            400,
            "'loc': 'query.limit', 'msg': 'Input should be less than or equal to 100'",
        ),
        ("vllm-omni", {"order": "up"}, 400, "'loc': 'query.order'"),
        ("sglang", {"limit": "0"}, 422, "Input should be greater than or equal to 1"),
        ("sglang", {"limit": "x"}, 422, NO_NUMBER),
        ("sglang", {"order": "up"}, 422, "Input should be 'asc' or 'desc'"),
    ],
)
def test_a_query_that_makes_no_sense_is_refused_in_the_server_s_words(serve, profile, query, status, entry):
    _, client = serve(profile)
    answer = client.get("/videos", params=query)
    body = answer.json()
    told = body["error"]["message"] if profile == "vllm-omni" else body["detail"][0]["msg"]
    assert (answer.status_code, entry in told) == (status, True)


@pytest.mark.parametrize("profile", ["vllm-omni", "sglang"])
@pytest.mark.parametrize(
    ("method", "path", "status", "detail"),
    [("GET", "/nothing", 404, "Not Found"), ("PUT", "/videos", 405, "Method Not Allowed")],
)
def test_an_unknown_route_is_answered_as_by_fastapi(serve, profile, method, path, status, detail):
    _, client = serve(profile)
    answer = client.request(method, path)
    assert (answer.status_code, answer.json()) == (status, {"detail": detail})


@pytest.mark.parametrize("profile", ["vllm-omni", "sglang"])
@pytest.mark.parametrize(
    "fields", [{"seconds": "9" * 5000}, {"seconds": "601"}, {"size": "62x64"}, {"fps": "1e308", "seconds": "600"}]
)
def test_what_nobody_can_draw_is_refused(serve, profile, fields):
    simulator, client = serve(profile)
    answer = client.post("/videos", files=form(prompt="x", **fields))
    assert (400 <= answer.status_code < 500, simulator.creates) == (True, 0)


def test_vllm_omni_answers_a_failed_job_with_its_error_and_the_whole_job(serve):
    _, client = serve("vllm-omni", failure_rate=1.0)
    video_id = create(client)["id"]
    answer = client.get(f"/videos/{video_id}")
    video = answer.json()
    assert (answer.status_code, video["object"], video["status"]) == (500, "video", "failed")
    assert (video["error"]["code"], video["progress"]) == (500, 0)
    assert client.get("/videos").json()["data"] == [video]
    assert client.get(f"/videos/{video_id}/content").status_code == 422


def test_vllm_omni_stops_a_running_job_that_is_deleted(serve):
    simulator, client = serve("vllm-omni", latency=(1000, 1000))
    for _ in range(2):
        video_id = create(client)["id"]
        assert client.get(f"/videos/{video_id}").json()["progress"] == 0
        gone = {"id": video_id, "deleted": True, "object": "video.deleted"}
        assert client.delete(f"/videos/{video_id}").json() == gone
    assert simulator.max_in_flight == 1


def test_vllm_omni_gives_the_video_whatever_variant_is_asked_for(serve):
    _, client = serve("vllm-omni")
    answer = client.get(f"/videos/{create(client)['id']}/content", params={"variant": "thumbnail"})
    assert answer.headers["Content-Type"] == "video/mp4"


def test_sglang_words_a_video_in_its_own_way(serve):
    _, client = serve("sglang")
    video = create(client)
    assert uuid.UUID(video["id"]).version == 4
    assert "prompt" not in video
    assert (video["quality"], video["size"]) == ("standard", "832x480")
    assert (video["urls"], video["file_paths"], video["num_outputs"]) == (None, None, None)
    assert video["file_path"].endswith(f"/{video['id']}.mp4")
    made = client.get(f"/videos/{video['id']}").json()
    assert (made["url"], made["urls"], made["num_outputs"]) == (None, [None], 1)
    assert (made["file_path"], made["file_paths"]) == (video["file_path"], [video["file_path"]])


def test_sglang_gives_a_failed_job_an_error_without_a_code(serve):
    _, client = serve("sglang", failure_rate=1.0)
    answer = client.get(f"/videos/{create(client)['id']}")
    video = answer.json()
    assert (answer.status_code, video["status"], video["error"].keys()) == (200, "failed", {"message"})
    assert (video["completed_at"], video["file_path"]) == (None, None)
    assert video["error"]["message"].startswith("Model generation failed. Error from scheduler: ")
    assert client.get(f"/videos/{video['id']}/content").json() == {"detail": "Video variant None not found"}


def test_sglang_forgets_a_running_job_that_is_deleted_and_works_on(serve):
    simulator, client = serve("sglang", latency=(1000, 1000))
    for _ in range(2):
        video = create(client)
        assert client.delete(f"/videos/{video['id']}").json() == video | {"status": "deleted"}
        assert client.get(f"/videos/{video['id']}").json() == {"detail": "Video not found"}
    assert simulator.max_in_flight == 2


@pytest.mark.parametrize(("variant", "status"), [(None, 200), ("0", 200), ("1", 404), ("video", 404), ("\u0660", 200)])
def test_sglang_reads_a_variant_as_a_number(serve, variant, status):
    _, client = serve("sglang")
    query = {"variant": variant} if variant else {}
    answer = client.get(f"/videos/{create(client)['id']}/content", params=query)
    assert answer.status_code == status
    if status == 404:
        assert answer.json() == {"detail": f"Video variant {variant} not found"}


def test_sglang_answers_an_unfinished_content_with_404(serve):
    _, client = serve("sglang", latency=(1000, 1000))
    answer = client.get(f"/videos/{create(client)['id']}/content")
    assert (answer.status_code, answer.json()) == (404, {"detail": "Generation is still in-progress"})
