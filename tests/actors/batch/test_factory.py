"""From a request and the settings to records."""

import base64

import pytest

from actors.batch.changes import changed_columns
from actors.batch.factory import new_batch
from actors.batch.requests import BatchVideoRequest
from actors.errors import InvalidRequest
from actors.settings import Settings
from storage.states import BatchStatus, JobStatus
from tests.builders import NOON

PICTURE = "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()


def taken_in(request, **settings):
    parsed = BatchVideoRequest.parse(request, max_size=10)
    return new_batch(parsed, Settings(_env_file=None, **settings), NOON)


def changed(change, **settings):
    return changed_columns({"nature-02": change}, Settings(_env_file=None, **settings))


def wrong(act):
    with pytest.raises(InvalidRequest) as caught:
        act()
    return [entry.field for entry in caught.value.errors]


def test_a_request_becomes_a_pending_batch_of_pending_jobs():
    new = taken_in({"videos": [{"prompt": "a"}, {"prompt": "b", "duration": 9}], "id": "nature", "batch_name": "N"})
    assert (new.batch.id, new.batch.name, new.batch.status, new.batch.total) == ("nature", "N", BatchStatus.PENDING, 2)
    assert [(job.id, job.position, job.status) for job in new.jobs] == [
        ("nature-01", 1, JobStatus.PENDING), ("nature-02", 2, JobStatus.PENDING),
    ]  # fmt: skip
    assert [job.duration for job in new.jobs] == [None, 9]


def test_what_a_request_does_not_say_the_settings_say():
    settings = {"sora_model": "m", "sora_size": "10x10", "sora_seconds": 4, "batch_concurrency": 7}
    new = taken_in(
        {"videos": [{"prompt": "a"}, {"prompt": "b", "model": "n", "size": "20x20", "duration": 1}]}, **settings
    )
    assert [(job.model, job.size, job.duration) for job in new.jobs] == [("m", "10x10", 4), ("n", "20x20", 1)]
    assert (new.batch.concurrency, new.batch.timeout) == (7, 300.0)


@pytest.mark.parametrize(("milliseconds", "seconds"), [(0, 0.0), (1500, 1.5), (None, 300.0)])
def test_a_timeout_of_zero_is_not_the_default(milliseconds, seconds):
    assert taken_in({"videos": [{"prompt": "a"}], "timeout_ms": milliseconds}).batch.timeout == seconds


def test_a_batch_without_an_id_gets_one_of_its_own():
    ids = {taken_in({"videos": [{"prompt": "a"}]}).batch.id for _ in range(20)}
    assert len(ids) == 20


def test_a_digest_is_of_the_request_and_not_of_its_id_or_its_spelling():
    video = {"prompt": "a", "input_reference": PICTURE}
    digest = taken_in({"videos": [video], "id": "one", "batch_name": "N"}).batch.digest
    assert taken_in({"videos": [video], "id": "two", "batchName": "N"}).batch.digest == digest
    assert taken_in({"videos": [video | {"prompt": "b"}], "batch_name": "N"}).batch.digest != digest
    assert taken_in({"videos": [{"prompt": "a"}], "batch_name": "N"}).batch.digest != digest


def test_a_reference_belongs_to_the_request_by_its_bytes(tmp_path):
    paths = [tmp_path / name for name in ("a.png", "b.png")]
    for path in paths:
        path.write_bytes(b"\x89PNG\r\n\x1a\n")
    first, second = (taken_in({"videos": [{"prompt": "a", "input_reference": str(path)}]}) for path in paths)
    assert first.batch.digest == second.batch.digest
    paths[0].write_bytes(b"\x89PNG\r\n\x1a\nchanged")
    again = taken_in({"videos": [{"prompt": "a", "input_reference": str(paths[0])}]})
    assert again.batch.digest != first.batch.digest


def test_a_picture_that_several_videos_use_is_kept_once():
    new = taken_in({"videos": [{"prompt": "a", "input_reference": PICTURE}] * 3})
    (reference,) = new.references
    assert [job.reference for job in new.jobs] == [{"digest": reference.digest}] * 3


def test_a_reference_that_can_not_be_had_is_named_by_a_json_pointer():
    videos = [{"prompt": "a"}, {"prompt": "b", "input_reference": "/does/not/exist"}]
    assert wrong(lambda: taken_in({"videos": videos})) == ["/videos/1/input_reference"]


# --- changes


def test_only_what_is_changed_is_a_column():
    assert changed({"size": "10x10"}) == ({"nature-02": {"size": "10x10"}}, [])
    assert changed({"prompt": "b", "duration": None}) == ({"nature-02": {"prompt": "b", "duration": None}}, [])


def test_a_file_that_is_set_to_null_is_removed():
    (columns, references) = changed({"files": {"mask": None, "audio": {"file_id": "f"}}})
    assert columns == {"nature-02": {"options": {"files": {"audio": {"file_id": "f"}, "mask": None}}}}
    assert references == []
    assert changed({"files": {"mask": None}})[0] == {"nature-02": {"options": {"files": {"mask": None}}}}


def test_a_changed_reference_comes_with_its_bytes():
    columns, (reference,) = changed({"inputReference": PICTURE})
    assert columns == {"nature-02": {"reference": {"digest": reference.digest}}}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"prompt": ""}, "prompt"),
        ({"duration": 0}, "duration"),
        ({"seed": -1}, "seed"),
        ({"params": {"seconds": 1}}, "params"),
        ({"input_reference": "/does/not/exist"}, "input_reference"),
    ],
)
def test_a_change_that_is_wrong_is_named_by_a_json_pointer(change, field):
    assert wrong(lambda: changed(change)) == [f"/changes/nature-02/{field}"]
