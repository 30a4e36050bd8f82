"""What a request says beyond the prompt, on its way to the server and back into the record."""

import base64
import hashlib
from collections.abc import Callable
from time import perf_counter
from typing import Any

import pytest

from actors.service import BatchService
from tests.integration.support import PATIENCE, rows
from tests.provider.client import Provider

pytestmark = pytest.mark.integration

Start = Callable[..., BatchService]
PNG = b"\x89PNG\r\n\x1a\n" + bytes(100)
SHA256 = hashlib.sha256(PNG).hexdigest()
DATA_URL = "data:image/png;base64," + base64.b64encode(PNG).decode()


def sent(provider: Provider) -> list[dict[str, Any]]:
    return [post["fields"] for post in provider.ledger()["posts"]]


REQUEST = {
    "id": "products",
    "videos": [{"prompt": "A {product}", "takes": 2, "seed": 7}],
    "defaults": {
        "duration": 8,
        "params": {
            "negative_prompt": 'blur, "text" ü', "fps": 24, "generate_audio": False, "guidance_scale": 3.5,
            "lora": {"name": "film", "scale": 1}, "tags": ["a", None], "width": None,
        },
        "files": {"last_frame": DATA_URL, "mask": {"file_id": "file-9"}},
    },
    "matrix": {"product": ["cup"]},
}  # fmt: skip


def test_a_form_has_text_and_files_for_what_a_request_says(provider: Provider, service: BatchService) -> None:
    batch = service.process_batch(service.create_batch(REQUEST).id).result(PATIENCE)
    assert batch.status == "completed"
    first, second = sorted(sent(provider), key=lambda fields: fields["seed"])
    assert first == {
        "prompt": "A cup", "seconds": "8", "seed": "7", "negative_prompt": 'blur, "text" ü', "fps": "24",
        "generate_audio": "false", "guidance_scale": "3.5", "lora": '{"name": "film", "scale": 1}',
        "tags": '["a", null]', "mask[file_id]": "file-9",
        "last_frame": {"filename": "reference.png", "content_type": "image/png", "bytes": 108, "sha256": SHA256},
    }  # fmt: skip
    assert second == {**first, "seed": "8"}
    assert [(job.take, job.seed, job.metadata) for job in batch.jobs] == [
        (1, 7, {"product": "cup"}), (2, 8, {"product": "cup"}),
    ]  # fmt: skip
    assert batch.jobs[0].params["lora"] == {"name": "film", "scale": 1}
    assert "width" not in batch.jobs[0].params


def test_json_has_what_a_request_says_as_it_is(provider: Provider, start_service: Start) -> None:
    service = start_service(sora_request_format="json")
    service.process_batch(service.create_batch(REQUEST).id).result(PATIENCE)
    first = min(sent(provider), key=lambda fields: fields["seed"])
    assert first == {
        "prompt": "A cup", "seconds": 8, "seed": 7, "negative_prompt": 'blur, "text" ü', "fps": 24,
        "generate_audio": False, "guidance_scale": 3.5, "lora": {"name": "film", "scale": 1}, "tags": ["a", None],
        "mask": {"file_id": "file-9"}, "last_frame": DATA_URL,
    }  # fmt: skip


@pytest.mark.parametrize("name", ["lora[name]", "größe", "a.b:c/d;e=f", "x" * 128])
def test_the_names_of_params_arrive_as_they_are(provider: Provider, service: BatchService, name: str) -> None:
    batch = service.create_batch({"videos": [{"prompt": "a", "params": {name: "é\r\n--x"}}]})
    assert service.process_batch(batch.id).result(PATIENCE).status == "completed"
    assert sent(provider) == [{"prompt": "a", name: "é\r\n--x"}]


def test_the_events_say_what_is_asked_for(service: BatchService) -> None:
    batch = service.create_batch(REQUEST)
    service.process_batch(batch.id).result(PATIENCE)
    told = [event.data["job"] for event in service.history(batch.id) if event.name == "job.completed"]
    assert sorted((job["seed"], job["take"], job["params"]["fps"]) for job in told) == [(7, 1, 24), (8, 2, 24)]


def test_the_same_request_is_the_same_batch_whatever_was_drawn(service: BatchService) -> None:
    request = {**REQUEST, "videos": [{"prompt": "a {product}", "seed": "random"}]}
    batch = service.create_batch(request)
    assert service.create_batch(request) == batch
    assert isinstance(batch.jobs[0].seed, int)


def test_a_retry_changes_one_param_and_sends_the_others_as_before(provider: Provider, service: BatchService) -> None:
    provider.fault(on="create", do="answer", status=400, times=1)
    batch = service.create_batch({"videos": [{"prompt": "a", "seed": 4, "params": {"fps": 240, "steps": 2}}]})
    assert service.process_batch(batch.id).result(PATIENCE).status == "failed"
    again = service.retry_batch(batch.id, changes={batch.job_ids[0]: {"params": {"fps": 24}}}).result(PATIENCE)
    assert again.status == "completed"
    assert again.jobs[0].params == {"fps": 24, "steps": 2}
    assert sent(provider)[-1] == {"prompt": "a", "seed": "4", "fps": "24", "steps": "2"}


def test_files_go_with_the_last_batch_that_uses_them(service: BatchService, tmp_path: Any) -> None:
    for batch_id in ("a", "b"):
        service.create_batch({"id": batch_id, "videos": [{"prompt": "x", "files": {"mask": DATA_URL}}]})
        service.cancel_batch(batch_id)
    for batch_id, left in (("a", 1), ("b", 0)):
        service.delete_batch(batch_id)
        assert len(rows(tmp_path, "SELECT digest FROM input_references")) == left


def test_a_request_of_the_largest_size_is_created_within_two_seconds(start_service: Start) -> None:
    service = start_service(batch_max_size=10_000)
    request = {
        "videos": [{"prompt": "{a} of {b}", "seed": "random", "params": {"fps": 24, "negative_prompt": "{a}"}}],
        "defaults": {"takes": 100, "metadata": {"campaign": "spring"}},
        "matrix": {"a": list(range(10)), "b": [str(number) for number in range(10)]},
    }
    began = perf_counter()
    batch = service.create_batch(request)
    assert perf_counter() - began < 2
    assert len(batch.jobs) == 10_000
