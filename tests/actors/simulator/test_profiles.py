"""The simulator over HTTP, as vLLM-Omni and as SGLang: what they do otherwise."""

import re
import ssl
import uuid
from contextlib import ExitStack

import httpx2
import pytest

from actors.simulator import PROFILES, SimulatorOptions, simulator_in_thread

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
def test_the_list_gives_at_least_one(serve, profile):
    _, client = serve(profile)
    assert client.get("/videos", params={"limit": 0}).status_code == 400


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
    assert (answer.status_code, error["type"], error["param"]) == (400, "Bad Request", "prompt")
    assert error["code"] == 400
    assert simulator.creates == 0


def test_vllm_omni_words_a_video_in_its_own_way(serve):
    _, client = serve("vllm-omni")
    video = create(client)
    assert re.fullmatch("video_gen_[0-9a-f]{32}", video["id"])
    assert (video["size"], video["expires_at"], video["media_type"]) == (None, None, "video/mp4")


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
    assert (video["quality"], video["url"], video["file_path"]) == ("standard", None, None)


def test_sglang_gives_a_failed_job_an_error_without_a_code(serve):
    _, client = serve("sglang", failure_rate=1.0)
    answer = client.get(f"/videos/{create(client)['id']}")
    video = answer.json()
    assert (answer.status_code, video["status"], video["error"].keys()) == (200, "failed", {"message"})
    assert video["completed_at"] is None
    assert client.get(f"/videos/{video['id']}/content").json() == {"detail": "Video not found"}


def test_sglang_forgets_a_running_job_that_is_deleted_and_works_on(serve):
    simulator, client = serve("sglang", latency=(1000, 1000))
    for _ in range(2):
        video = create(client)
        assert client.delete(f"/videos/{video['id']}").json() == video | {"status": "deleted"}
        assert client.get(f"/videos/{video['id']}").json() == {"detail": "Video not found"}
    assert simulator.max_in_flight == 2


@pytest.mark.parametrize(("variant", "status"), [(None, 200), ("0", 200), ("1", 404), ("video", 404), ("\u0660", 404)])
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
