"""What a request says beyond the prompt, on its way to the server and back into the record."""

import base64
import hashlib
from collections.abc import Callable
from pathlib import Path
from time import process_time
from typing import Any

import pytest

from actors.batch.views import Batch
from actors.service import BatchService
from actors.sora.wire import Phase, RemoteVideo
from actors.video.comparison import Measured, compare, measure
from tests.builders import a_job
from tests.integration.support import PATIENCE, rows, settings_from
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


def warnings_of(batch: Batch) -> list[tuple[str, Any, Any]]:
    return [(each.code, each.asked, each.made) for job in batch.jobs for each in job.warnings]


def test_what_the_server_ignored_is_a_warning_on_the_job(provider: Provider, service: BatchService) -> None:
    provider.options(tells={"seconds": "8", "size": "854x480", "seed": "7", "revised_prompt": "a wide lake"})
    video = {"prompt": "a lake", "duration": 12, "size": "1280x720", "seed": 5}
    batch = service.process_batch(service.create_batch({"videos": [video]}).id).result(PATIENCE)
    assert batch.status == "completed"
    assert warnings_of(batch) == [
        ("duration_differs", 12, 8), ("size_differs", "1280x720", "854x480"), ("seed_differs", 5, 7),
    ]  # fmt: skip
    assert batch.jobs[0].warnings[0].message == "asked for duration 12 s; the server reports 8 s"
    reported = batch.jobs[0].reported
    assert reported is not None
    assert reported.model_dump() == {
        "seconds": 8, "size": "854x480", "seed": 7, "revised_prompt": "a wide lake",
    }  # fmt: skip
    (told,) = [event.data["job"] for event in service.history(batch.id) if event.name == "job.completed"]
    assert [warning["code"] for warning in told["warnings"]] == ["duration_differs", "size_differs", "seed_differs"]
    assert told["reported"]["seed"] == 7


def test_which_seed_a_video_has_is_uncertain_if_its_answer_and_its_twins_were_lost(
    provider: Provider, start_service: Start
) -> None:
    provider.fault(on="create", do="lose_response", times=2)
    service = start_service(sora_listing="whole")
    takes = {"prompt": "a lake", "seed": 7, "takes": 2, "params": {"fps": 24}}
    batch = service.create_batch({"videos": [takes, {"prompt": "a boat", "seed": 5}], "id": "b"})
    batch = service.process_batch(batch.id).result(PATIENCE)
    assert batch.status == "completed"
    assert warnings_of(batch) == [("seed_uncertain", 7, None), ("seed_uncertain", 8, None)]
    assert "may be that of b-02" in batch.jobs[0].warnings[0].message


def test_what_was_asked_for_and_made_is_no_warning(provider: Provider, service: BatchService) -> None:
    provider.options(tells={"seed": 5})
    video = {"prompt": "a lake", "duration": 12, "size": "1280x720", "seed": 5}
    batch = service.process_batch(service.create_batch({"videos": [video, {"prompt": "b"}]}).id).result(PATIENCE)
    assert warnings_of(batch) == []


def test_a_server_that_tells_nothing_reports_nothing(provider: Provider, service: BatchService) -> None:
    provider.options(tells={"seconds": None, "size": None})
    batch = service.process_batch(service.create_batch({"videos": [{"prompt": "a", "duration": 4}]}).id).result(
        PATIENCE
    )
    assert (batch.jobs[0].reported, batch.jobs[0].warnings) == (None, [])


def test_the_length_and_size_of_the_file_count_for_more_than_what_the_server_says(
    start_service: Start, tmp_path: Path
) -> None:
    service = BatchService(
        settings_from({**OWN, "database_url": f"sqlite:///{tmp_path}/db", "video_dir": str(tmp_path)}), simulate=True
    )
    with service:
        batch = service.process_batch(service.create_batch({"videos": [{"prompt": "a lake"}]}).id).result(PATIENCE)
    assert batch.jobs[0].video is not None
    path = Path(batch.jobs[0].video.path)
    assert measure(path) == Measured(2.0, "320x240")
    told = RemoteVideo(
        id="v", status="completed", phase=Phase.READY, progress=None, created_at=None, prompt=None, model=None,
        seconds="4", size="1280x720", failure=None, urls=(), inline=None,
    )  # fmt: skip
    made = compare(a_job(duration=4, size="1280x720"), told, measure(path))
    assert made is not None
    assert [(each["code"], each["asked"], each["made"], each["message"]) for each in made["warnings"]] == [
        ("duration_differs", 4, 2.0, "asked for duration 4 s; the file has 2.0 s"),
        ("size_differs", "1280x720", "320x240", "asked for size 1280x720; the file has 320x240"),
    ]
    assert warnings_of(batch) == []
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(path.read_bytes()[:60])
    assert measure(broken) == Measured(None, None)


def test_the_prices_that_a_server_tells_are_kept_with_the_submission(
    provider: Provider, service: BatchService, tmp_path: Path
) -> None:
    usage = {"cost": 0.1, "cost_in_usd_ticks": 1_000_000_000, "duration_seconds": "8", "cost_details": {}}
    provider.options(tells={"usage": usage}, create_headers={"x-litellm-response-cost": "0.4000001"})
    batch = service.create_batch({"id": "b", "videos": [{"prompt": "a lake"}, {"prompt": "a sea [fail]"}]})
    service.process_batch(batch.id).result(PATIENCE)
    told = {
        "x-litellm-response-cost": "0.4000001", "usage.cost": 0.1, "usage.cost_in_usd_ticks": 1_000_000_000,
        "usage.duration_seconds": "8",
    }  # fmt: skip
    assert [entry.told for entry in service.submissions("b")] == [told, told]


def test_prices_that_are_no_numbers_are_not_kept(provider: Provider, service: BatchService) -> None:
    provider.options(tells={"usage": {"cost": "much", "duration_seconds": None}}, create_headers=BAD_PRICE)
    batch = service.process_batch(service.create_batch({"videos": [{"prompt": "a lake"}]}).id).result(PATIENCE)
    assert batch.status == "completed"
    assert [entry.told for entry in service.submissions(batch.id)] == [None]


OWN = {"sora_seconds": 2, "sora_size": "320x240"}
BAD_PRICE = {"x-litellm-response-cost": "None"}


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
    began = process_time()  # so that what else the machine does makes no difference
    batch = service.create_batch(request)
    assert process_time() - began < 2
    assert len(batch.jobs) == 10_000
