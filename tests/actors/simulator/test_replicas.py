"""Several stores behind one port: each answers for its own videos alone."""

import ssl
from contextlib import ExitStack

import httpx2
import pytest

from actors.simulator import SimulatorOptions
from tests.servers.simulator import simulator_in_thread

NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Without certificates, since loading them takes a test longer than all the rest, and this is plain HTTP."""


@pytest.fixture
def serve():
    """Start a simulator, and give it with a client of it."""
    with ExitStack() as stack:

        def start(**options):
            settings = SimulatorOptions(**{"latency": (1000, 1000), "content_bytes": 10, "seed": 1} | options)
            simulator, url = stack.enter_context(simulator_in_thread(settings))
            return simulator, stack.enter_context(httpx2.Client(base_url=url, verify=NO_TLS))

        yield start


def replica(answer):
    return int(answer.headers["X-Simulated-Replica"])


def create(client):
    answer = client.post("/videos", json={"prompt": "a lake"}).raise_for_status()
    return answer.json()["id"], replica(answer)


@pytest.mark.parametrize("profile", ["openai", "vllm-omni", "sglang"])
def test_a_video_is_known_to_the_replica_alone_that_took_it(serve, profile):
    _, client = serve(replicas=2, profile=profile)
    answer = client.post("/videos", files={"prompt": (None, "a lake")})
    video_id, home = answer.json()["id"], replica(answer)
    for path in (f"/videos/{video_id}", f"/videos/{video_id}/content"):
        answers = [client.get(path) for _ in range(20)]
        assert {replica(answer) for answer in answers} == {0, 1}
        found = {replica(answer) for answer in answers if "not found" not in answer.text.lower()}
        assert found == ({home} if path.endswith(video_id) else found & {home})


def test_each_replica_lists_its_own_videos(serve):
    _, client = serve(replicas=3)
    made = [create(client) for _ in range(30)]
    pages = {replica(answer): answer.json() for answer in (client.get("/videos?limit=100") for _ in range(40))}
    assert pages.keys() == {0, 1, 2}
    for number, page in pages.items():
        assert {video["id"] for video in page["data"]} == {video_id for video_id, home in made if home == number}
        assert not page["has_more"]


def test_only_its_own_replica_deletes_a_video(serve):
    _, client = serve(replicas=2, profile="vllm-omni")
    answer = client.post("/videos", files={"prompt": (None, "x")})
    video_id, home = answer.json()["id"], replica(answer)
    answers = []
    while not answers or answers[-1].status_code == 404:
        answers.append(client.delete(f"/videos/{video_id}"))
    assert replica(answers[-1]) == home
    assert home not in {replica(answer) for answer in answers[:-1]}


def test_all_that_is_accepted_counts_whichever_replica_took_it(serve):
    simulator, client = serve(replicas=4)
    for _ in range(12):
        create(client)
    assert (simulator.creates, simulator.max_in_flight) == (12, 12)


def test_the_same_seed_sends_the_same_requests_to_the_same_replicas(serve):
    chosen = []
    for _ in range(2):
        _, client = serve(replicas=2)
        chosen.append([create(client)[1] for _ in range(20)])
    assert chosen[0] == chosen[1]
    assert set(chosen[0]) == {0, 1}


def test_after_a_restart_each_replica_has_its_videos_again(serve, tmp_path):
    state_file = tmp_path / "jobs.jsonl"
    _, client = serve(replicas=2, state_file=state_file)
    made = dict(create(client) for _ in range(10))
    _, again = serve(replicas=2, state_file=state_file)
    listed = {replica(answer): answer.json()["data"] for answer in (again.get("/videos") for _ in range(20))}
    assert {video["id"]: number for number, videos in listed.items() for video in videos} == made


def test_one_replica_has_all_after_a_restart_without_the_others(serve, tmp_path):
    state_file = tmp_path / "jobs.jsonl"
    _, client = serve(replicas=2, state_file=state_file)
    made = {create(client)[0] for _ in range(10)}
    _, again = serve(state_file=state_file)
    answer = again.get("/videos")
    assert {video["id"] for video in answer.json()["data"]} == made
    assert "X-Simulated-Replica" not in answer.headers
