"""The official SDK works against the simulator unchanged."""

from contextlib import ExitStack

import openai
import pytest

from actors.simulator import SimulatorOptions
from tests.servers.simulator import simulator_in_thread

# The SDK warns that the hosted API is gone; the protocol is not.
pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore:The Sora API is scheduled:DeprecationWarning"),
]


@pytest.fixture
def connect():
    """Start a simulator, and give the SDK's client of it."""
    with ExitStack() as stack:

        def start(key="key", **options):
            settings = SimulatorOptions(**{"latency": (0, 0), "content_bytes": 1000} | options)
            _, url = stack.enter_context(simulator_in_thread(settings))
            return stack.enter_context(openai.OpenAI(base_url=url, api_key=key, max_retries=0))

        yield start


@pytest.fixture
def client(connect):
    return connect()


def test_a_film_is_made_polled_for_and_downloaded(connect, tmp_path):
    av = pytest.importorskip("av")
    client = connect(content_bytes=None)
    video = client.videos.create_and_poll(prompt="A sunset over the ocean", seconds="4", size="1280x720")
    assert (video.status, video.progress, video.seconds, video.size) == ("completed", 100, "4", "1280x720")
    client.videos.download_content(video.id).write_to_file(tmp_path / "film.mp4")
    with av.open(tmp_path / "film.mp4") as container:
        (stream,) = container.streams.video
        assert (stream.width, stream.height, container.duration) == (1280, 720, 4_000_000)


def test_a_video_is_seen_on_its_way(connect):
    client = connect(latency=(1, 1))
    seen = [client.videos.create(prompt="a lake")]
    while seen[-1].status in {"queued", "in_progress"}:
        seen.append(client.videos.retrieve(seen[0].id))
    statuses = list(dict.fromkeys(video.status for video in seen))
    assert statuses == ["queued", "in_progress", "completed"]
    progress = [video.progress for video in seen]
    assert progress == sorted(progress)
    assert len(set(progress)) > 10


def test_the_list_is_paged_through_to_its_end(client):
    made = [client.videos.create(prompt=f"lake {number}").id for number in range(7)]
    assert [video.id for video in client.videos.list(limit=3, order="asc")] == made
    assert [video.id for video in client.videos.list(limit=3)] == made[::-1]


@pytest.mark.parametrize("variant", ["video", "thumbnail", "spritesheet"])
def test_every_variant_is_downloaded(client, variant):
    video = client.videos.create(prompt="a lake")
    assert len(client.videos.download_content(video.id, variant=variant).read()) == 1000


def test_a_picture_is_sent_along(client):
    video = client.videos.create(prompt="a lake", input_reference=("a.png", b"\x89PNG", "image/png"))
    assert client.videos.retrieve(video.id).status == "completed"


def test_an_address_of_a_picture_is_sent_along(client):
    reference = {"input_reference": {"image_url": "https://example.com/a.png"}}
    assert client.videos.create(prompt="a lake", extra_body=reference).status == "queued"


def test_fields_that_the_sdk_does_not_know_are_told_back(client):
    further = {"seed": 7, "negative_prompt": "blur", "generate_audio": True}
    video = client.videos.create(prompt="a lake", extra_body=further)
    told = client.videos.retrieve(video.id).model_extra
    assert (told["seed"], told["negative_prompt"], told["generate_audio"]) == (7, "blur", "true")


def test_a_video_is_deleted(client):
    video = client.videos.create(prompt="a lake")
    assert client.videos.delete(video.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.videos.retrieve(video.id)


def test_a_video_is_remixed(client):
    video = client.videos.create_and_poll(prompt="a lake")
    assert client.videos.remix(video.id, prompt="at night").remixed_from_video_id == video.id


def test_a_blocked_prompt_ends_as_a_failed_video(connect):
    client = connect(moderation=("gun",))
    video = client.videos.create_and_poll(prompt="a gun")
    assert video.status == "failed"
    assert video.error.code == "moderation_blocked"


def test_a_wrong_key_is_an_authentication_error(connect):
    with pytest.raises(openai.AuthenticationError) as raised:
        connect(key="wrong", api_key="right").videos.list()
    assert raised.value.code == "invalid_api_key"


def test_a_wrong_field_is_a_bad_request_error(client):
    with pytest.raises(openai.BadRequestError) as raised:
        client.videos.create(prompt="a lake", size="big")
    assert raised.value.param == "size"


def test_a_create_too_many_is_a_rate_limit_error(connect):
    client = connect(rate_limit=0.01)
    client.videos.create(prompt="a lake")
    with pytest.raises(openai.RateLimitError) as raised:
        client.videos.create(prompt="a lake")
    assert raised.value.code == "rate_limit_exceeded"
    assert raised.value.response.headers["retry-after"] == "100"


def test_the_sdk_waits_as_long_as_it_is_told_and_tries_again(connect):
    client = connect(rate_limit=5.0).with_options(max_retries=2)
    videos = [client.videos.create(prompt="a lake") for _ in range(7)]
    assert len({video.id for video in videos}) == 7


def test_a_running_video_is_a_conflict_to_delete(connect):
    client = connect(latency=(1000, 1000))
    with pytest.raises(openai.ConflictError):
        client.videos.delete(client.videos.create(prompt="a lake").id)


def test_a_failed_job_of_vllm_omni_is_a_server_error_to_the_sdk(connect):
    client = connect(profile="vllm-omni", failure_rate=1.0)
    video = client.videos.create(prompt="a lake")
    with pytest.raises(openai.InternalServerError) as raised:
        client.videos.poll(video.id)
    assert raised.value.response.json()["status"] == "failed"


def test_models_are_listed(client):
    assert "sora-2" in [model.id for model in client.models.list()]
