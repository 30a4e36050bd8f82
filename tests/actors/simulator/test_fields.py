"""Fields that no standard knows: the simulator takes them and tells them back."""

import hashlib
import json
import ssl
from contextlib import ExitStack
from io import BytesIO

import httpx2
import pytest

from actors.simulator import SimulatorOptions
from tests.servers.simulator import simulator_in_thread

NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Without certificates, since loading them takes a test longer than all the rest, and this is plain HTTP."""
PICTURE = b"\x89PNG and so on"


@pytest.fixture
def serve():
    """Start a simulator, and give it with a client of it."""
    with ExitStack() as stack:

        def start(**options):
            settings = SimulatorOptions(**{"latency": (0, 0), "content_bytes": 10} | options)
            simulator, url = stack.enter_context(simulator_in_thread(settings))
            return simulator, stack.enter_context(httpx2.Client(base_url=url, verify=NO_TLS))

        yield start


@pytest.fixture
def client(serve):
    return serve()[1]


def file(content, name, kind):
    digest = hashlib.sha256(content).hexdigest()
    return {"filename": name, "bytes": len(content), "content_type": kind, "sha256": digest}


def told_by_all(client, **request):
    """What POST, GET and the listing tell, which must be the same."""
    video = client.post("/videos", **request).raise_for_status().json()
    got = client.get(f"/videos/{video['id']}").json()
    listed = client.get("/videos").json()["data"][0]
    fields = [{name: told[name] for name in told.keys() - MOVING} for told in (video, got, listed)]
    assert fields[0] == fields[1] == fields[2]
    return video


MOVING = {"status", "progress", "completed_at", "expires_at"}


def test_texts_of_a_form_are_told_back_as_they_came(client):
    asked = {"negative_prompt": "blur, naïve", "fps": "24", "generate_audio": "true", "lora": '{"name": "x"}'}
    assert told_by_all(client, data={"prompt": "a lake"} | asked).items() >= asked.items()
    parts = {name: (None, value) for name, value in {"prompt": "a lake", **asked}.items()}
    assert told_by_all(client, files=parts).items() >= asked.items()


def test_members_of_a_json_body_are_told_back_as_they_came(client):
    asked = {"fps": 24, "guidance_scale": 4.5, "generate_audio": True, "lora": {"name": "x", "scales": [1, 0.5]}}
    assert told_by_all(client, json={"prompt": "a lake"} | asked).items() >= asked.items()


@pytest.mark.parametrize("seed", [0, 7, 2**63 - 1])
def test_a_seed_is_told_back_as_a_number_whichever_form_it_came_in(client, seed):
    assert told_by_all(client, data={"prompt": "x", "seed": str(seed)})["seed"] == seed
    assert told_by_all(client, json={"prompt": "x", "seed": seed})["seed"] == seed


def test_a_seed_that_is_no_number_is_told_back_as_it_came(client):
    assert told_by_all(client, data={"prompt": "x", "seed": "random"})["seed"] == "random"


def test_files_of_a_form_are_told_back_by_what_they_are(client):
    files = {
        "prompt": (None, "a lake"),
        "input_reference": ("a.png", BytesIO(PICTURE), "image/png"),
        "last_frame": ("b.webp", BytesIO(b""), "image/webp"),
        "audio": ("c.wav", BytesIO(b"RIFF" * 1_000_000), "audio/wav"),
    }
    expected = {
        "input_reference": file(PICTURE, "a.png", "image/png"),
        "last_frame": file(b"", "b.webp", "image/webp"),
        "audio": file(b"RIFF" * 1_000_000, "c.wav", "audio/wav"),
    }
    assert told_by_all(client, files=files).items() >= expected.items()


def test_data_urls_of_a_json_body_are_told_back_by_what_they_are(client):
    url = "data:image/png;base64,iVBORyBhbmQgc28gb24="
    content = b"\x89PNG and so on"
    asked = {"prompt": "x", "last_frame": url, "input_reference": {"image_url": url}, "frames": [{"url": url}]}
    video = told_by_all(client, json=asked)
    described = file(content, None, "image/png")
    assert video["last_frame"] == described
    assert video["input_reference"] == {"image_url": described}
    assert video["frames"] == [{"url": described}]


@pytest.mark.parametrize("url", ["data:", "data:text/plain,hello", "data:image/png;base64,!", "data:image/png;base64"])
def test_what_is_no_data_url_of_a_file_is_told_back_as_it_came(client, url):
    assert told_by_all(client, json={"prompt": "x", "note": url})["note"] == url


def test_a_field_that_comes_again_is_told_back_as_a_list(client):
    parts = [("prompt", (None, "x")), ("image", ("a.png", BytesIO(b"a"), "image/png")), ("image", (None, "b"))]
    assert told_by_all(client, files=parts)["image"] == [file(b"a", "a.png", "image/png"), "b"]


@pytest.mark.parametrize(
    ("content", "told"), [(b'{"a": 1}', '{"a": 1}'), (b"\xff", file(b"\xff", None, "application/octet-stream"))]
)
def test_a_part_that_says_what_it_is_is_told_back_too(client, content, told):
    body = b'--x\r\nContent-Disposition: form-data; name="prompt"\r\n\r\na lake\r\n--x\r\n'
    body += b'Content-Disposition: form-data; name="lora"\r\nContent-Type: application/json\r\n\r\n' + content
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    assert told_by_all(client, content=body + b"\r\n--x--\r\n", headers=headers)["lora"] == told


def test_a_field_that_means_something_else_in_an_answer_is_told_back_apart(client):
    asked = {"status": "failed", "id": "mine", "url": "http://192.0.2.1/film", "error": {"code": 1}, "fps": 24}
    video = told_by_all(client, json={"prompt": "x"} | asked)
    assert video["request"] == {name: value for name, value in asked.items() if name != "fps"}
    assert (video["status"], video["error"], video["fps"], "url" in video) == ("queued", None, 24, False)
    assert video["id"].startswith("video_")


def test_64_kib_of_any_text_are_taken(client):
    text = "\x01" * 65_536  # the text that JSON makes most of
    assert told_by_all(client, json={"prompt": "x", "note": text})["note"] == text


def test_too_much_is_refused(serve):
    simulator, client = serve()
    answer = client.post("/videos", json={"prompt": "x", "note": "a" * 600_000})
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "request_too_large")
    assert "600" in answer.json()["error"]["message"]
    assert simulator.creates == 0


def nested(levels):
    return b'{"prompt": "x", "deep": ' + b"[" * levels + b"]" * levels + b"}"


def test_what_is_nested_too_deeply_is_refused(client):
    answers = [
        client.post("/videos", content=nested(levels), headers={"Content-Type": "application/json"})
        for levels in (32, 33, 100_000)
    ]
    assert [answer.status_code for answer in answers] == [200, 400, 400]
    assert answers[1].json()["error"]["param"] == "deep"


def test_a_number_that_json_does_not_know_is_refused(client):
    body = b'{"prompt": "x", "scale": NaN}'
    assert client.post("/videos", content=body, headers={"Content-Type": "application/json"}).status_code == 400


def test_a_restarted_simulator_still_tells_them(serve, tmp_path):
    state_file = tmp_path / "jobs.jsonl"
    _, client = serve(state_file=state_file)
    video = client.post("/videos", json={"prompt": "x", "fps": 24}).json()
    # As the version before wrote it, without what is told.
    entry = json.loads(state_file.read_text())
    job = {name: value for name, value in entry["job"].items() if name not in ("told", "replica")} | {"id": "older"}
    with state_file.open("a") as file:
        file.write(json.dumps({"job": job}) + "\n")
    _, again = serve(state_file=state_file)
    assert again.get(f"/videos/{video['id']}").json()["fps"] == 24
    assert "fps" not in again.get("/videos/older").json()


def test_strict_takes_only_what_the_hosted_api_took(serve):
    _, client = serve(strict=True)

    def refused(**fields):
        error = client.post("/videos", json={"prompt": "x"} | fields).json().get("error")
        return error and (error["param"], error["code"])

    assert refused() is None
    assert refused(model="sora-2-pro", seconds="8", size="1280x720", input_reference={"file_id": "f"}) is None
    assert refused(seed=7) == ("seed", "unknown_parameter")
    assert refused(model="mine") == ("model", "invalid_value")
    assert refused(size="832x480") == ("size", "invalid_value")
    assert refused(seconds="10") == ("seconds", "invalid_value")
    form = {"prompt": (None, "x"), "input_reference[image_url]": (None, "https://example.com/a.png")}
    assert client.post("/videos", files=form).status_code == 200


def test_the_one_served_model_is_all_that_is_taken(serve):
    _, client = serve(model="mine")
    assert client.post("/videos", json={"prompt": "x"}).json()["model"] == "mine"
    answer = client.post("/videos", json={"prompt": "x", "model": "sora-2"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "model")
    assert [model["id"] for model in client.get("/models").json()["data"]] == ["mine"]
