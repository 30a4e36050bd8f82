"""Whole batches behind a proxy, and before a certificate that can't be verified."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from actors.service import BatchService
from tests.integration.support import PATIENCE, check_paid_once, numbered, settings_from, videos
from tests.provider.client import Provider
from tests.servers.http_proxy import Proxy, proxying
from tests.servers.http_recorder import Recorder, answer, certificate, in_thread, listening, serving_with

pytestmark = pytest.mark.integration


def test_a_batch_is_made_through_a_proxy(provider: Provider, start_service: Callable[..., BatchService]) -> None:
    proxy = Proxy()
    with in_thread(proxying(proxy)) as between:
        service = start_service(http_proxy=f"http://{between}")
        batch = service.create_batch(videos(*numbered(5)))
        assert service.process_batch(batch.id).result(PATIENCE).status == "completed"
        service.close()
    check_paid_once(provider)
    assert len([line for line in proxy.lines if line.startswith(f"POST {provider.base_url}/videos")]) == 5
    assert len([line for line in proxy.lines if line.endswith("/content")]) == 5


def test_what_a_proxy_lost_is_not_paid_for_twice(
    provider: Provider, start_service: Callable[..., BatchService]
) -> None:
    proxy = Proxy(dies="after the body")
    with in_thread(proxying(proxy)) as between:
        service = start_service(http_proxy=f"http://{between}", sora_settle=0)
        batch = service.create_batch(videos("a: video 1"))
        running = service.process_batch(batch.id)
        provider.wait_until(lambda ledger: len(ledger["posts"]) == 1)
        proxy.dies = None
        assert running.result(PATIENCE).status == "completed"
        service.close()
    check_paid_once(provider)
    assert len(provider.ledger()["posts"]) == 1


@pytest.mark.parametrize("what", ["certificate", "proxy"])
def test_what_does_not_pass_is_not_waited_for(
    what: str, start_service: Callable[..., BatchService], tmp_path: Path
) -> None:
    server = Recorder()
    refusing = Proxy(answer(b"", "407 Proxy Authentication Required"))
    with (
        in_thread(listening(server, serving_with(certificate(tmp_path)))) as host,
        in_thread(proxying(refusing)) as between,
    ):
        service = start_service(
            openai_base_url=f"https://{host}/v1",
            https_proxy=between if what == "proxy" else None,
            sora_connect_timeout=0,  # for ever
        )
        batch = service.create_batch(videos(*numbered(3)))
        batch = service.process_batch(batch.id, concurrency=1).result(PATIENCE)
        service.close()
    words = "has a certificate that can't be verified" if what == "certificate" else "requires a user and a password"
    assert batch.status == "failed"
    assert {job.error.code for job in batch.jobs} == {"network"}
    assert all(words in job.error.message for job in batch.jobs)
    assert batch.jobs[2].error.message.startswith(f"not submitted: {batch.jobs[0].id} could not be sent: ")
    assert server.heads == []


def test_the_built_in_simulator_is_reached_without_a_proxy(options: Callable[..., dict[str, Any]]) -> None:
    pytest.importorskip("av")
    settings = settings_from(options(http_proxy="http://127.0.0.1:1", openai_base_url=None))
    with BatchService(settings, simulate=True) as service:
        batch = service.create_batch(videos("a cat"))
        assert service.process_batch(batch.id).result(PATIENCE).status == "completed"


def test_the_simulator_takes_a_picture_in_json(options: Callable[..., dict[str, Any]]) -> None:
    pytest.importorskip("av")
    settings = settings_from(options(sora_request_format="json", openai_base_url=None))
    with BatchService(settings, simulate=True) as service:
        picture = "data:image/png;base64,iVBORw0KGgo="
        batch = service.create_batch({"videos": [{"prompt": "a cat", "input_reference": picture}]})
        done = service.process_batch(batch.id).result(PATIENCE)
    assert (done.status, done.jobs[0].error) == ("completed", None)


def test_a_file_id_that_the_server_would_drop_fails_its_own_video_only(
    start_service: Callable[..., BatchService],
) -> None:
    listing = b'{"data": [{"id": "Wan", "owned_by": "vllm"}]}'
    film = answer(b"\0\0\0\x18ftypmp42\0\0\0\0" + bytes(16), **{"Content-Type": "video/mp4"})
    server = Recorder([("models", answer(listing)), ("content", film)])
    with in_thread(listening(server)) as host:
        service = start_service(openai_base_url=f"http://{host}/v1")
        named = {"prompt": "a dog", "input_reference": {"file_id": "file-1"}}
        batch = service.create_batch({"videos": [named, {"prompt": "a cat"}]})
        done = service.process_batch(batch.id).result(PATIENCE)
        service.close()
    assert [job.status for job in done.jobs] == ["failed", "completed"]
    assert done.jobs[0].error.code == "invalid_request"
    assert "vLLM-Omni ignores the file_id of input_reference" in done.jobs[0].error.message
    assert [line for line in server.lines if line.startswith("POST")] == ["POST /v1/videos"]
