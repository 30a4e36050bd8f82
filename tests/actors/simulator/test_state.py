"""A simulator with a state file goes on after it was killed."""

import json
import os
import signal
import ssl
import subprocess
import sys
from contextlib import contextmanager

import httpx2
import pytest

from actors.simulator import SimulatorOptions
from tests.servers.simulator import simulator_in_thread

NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Without certificates, since loading them takes a test longer than all the rest, and this is plain HTTP."""

PROGRAM = """
import asyncio, pathlib, sys
sys.path[:] = {path!r}
from actors.simulator import Simulator, SimulatorOptions

async def serve():
    options = SimulatorOptions(latency=(0, 0), content_bytes=64, state_file=pathlib.Path({state_file!r}))
    print(await Simulator(options).start(), flush=True)
    await asyncio.Event().wait()

asyncio.run(serve())
"""


@pytest.fixture
def state_file(tmp_path):
    return tmp_path / "state" / "jobs.jsonl"


@contextmanager
def restarted(state_file, **options):
    options = SimulatorOptions(**{"latency": (0, 0), "content_bytes": 64, "state_file": state_file} | options)
    with (
        simulator_in_thread(options) as (simulator, url),
        httpx2.Client(base_url=url, verify=NO_TLS) as client,
    ):
        yield simulator, client


def create(client, prompt="a lake"):
    return client.post("/videos", json={"prompt": prompt}).raise_for_status().json()["id"]


def ids(client):
    return [video["id"] for video in client.get("/videos", params={"order": "asc"}).json()["data"]]


def test_a_job_whose_create_was_answered_survives_kill_9(state_file, tmp_path):
    program = PROGRAM.format(path=sys.path, state_file=str(state_file))
    command = [sys.executable, "-c", program]
    environment = os.environ | {"TMPDIR": str(tmp_path)}  # a killed simulator can't remove its folder
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        url = process.stdout.readline().strip()
        with httpx2.Client(base_url=url, verify=NO_TLS) as client:
            first, second, third = (create(client, prompt) for prompt in "abc")
            client.delete(f"/videos/{second}").raise_for_status()
        process.send_signal(signal.SIGKILL)
    with restarted(state_file) as (simulator, client):
        assert ids(client) == [first, third]
        assert client.get(f"/videos/{third}").json()["prompt"] == "c"
        assert client.get(f"/videos/{third}/content").status_code == 200
        assert client.get(f"/videos/{second}").status_code == 404
        assert simulator.creates == 0


def test_a_restarted_simulator_numbers_on(state_file):
    for _ in range(2):
        with restarted(state_file) as (_, client):
            create(client)
    jobs = [json.loads(line)["job"] for line in state_file.read_text().splitlines()]
    assert [job["number"] for job in jobs] == [1, 2]


def test_a_running_job_goes_on_with_the_time_that_it_had(state_file):
    with restarted(state_file, latency=(1000, 1000)) as (_, client):
        video_id = create(client)
    with restarted(state_file, latency=(0, 0)) as (_, client):
        assert client.get(f"/videos/{video_id}").json()["status"] == "queued"


def test_a_line_that_was_cut_off_is_forgotten_and_nothing_else(state_file):
    with restarted(state_file) as (_, client):
        first = create(client)
    with state_file.open("a") as file:
        file.write('{"job": {"number": 2, "id": "vid')
    with restarted(state_file) as (_, client):
        second = create(client)
    with restarted(state_file) as (_, client):
        assert ids(client) == [first, second]


def test_without_a_state_file_a_restart_loses_every_job():
    with restarted(None) as (_, client):
        video_id = create(client)
    with restarted(None) as (_, client):
        assert client.get(f"/videos/{video_id}").status_code == 404
