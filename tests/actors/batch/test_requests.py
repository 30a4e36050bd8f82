"""What is asked for and what is answered."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.batch.fields import DOCUMENT_MAX_BYTES, FileId
from actors.batch.job_views import Job, VideoFile, job_id, moment, with_urls
from actors.batch.requests import BatchVideoRequest, canonical_digest, check_metadata
from actors.batch.views import Batch, progress_of
from actors.errors import InvalidRequest
from storage.states import FINAL_BATCH, BatchStatus, JobStatus
from tests.builders import NOON, a_batch, a_job, some_jobs

LAKE = {"prompt": "a lake"}


def parsed(request, max_size=10):
    return BatchVideoRequest.parse(request, max_size=max_size)


def wrong(request, max_size=10):
    with pytest.raises(InvalidRequest) as caught:
        parsed(request, max_size)
    return caught.value


def wrong_video(**fields):
    return wrong({"videos": [LAKE, LAKE | fields]})


# --- what is right


def test_a_request_says_as_little_as_a_prompt():
    request = parsed({"videos": [LAKE]})
    (video,) = request.videos
    assert (video.prompt, video.duration, video.size, video.model, video.input_reference) == ("a lake", *[None] * 4)
    assert (request.batch_name, request.metadata, request.id, request.concurrency, request.timeout_ms) == (
        None, {}, None, None, None,
    )  # fmt: skip


def test_a_request_that_says_everything_is_read():
    video = LAKE | {"duration": 10, "size": "1280x720", "model": "sora-2", "metadata": {"a": [1, None]}}
    request = parsed(
        {"videos": [video], "batch_name": "N", "metadata": {"b": {}}, "id": "a-B_9", "concurrency": 99, "timeout_ms": 0}
    )
    assert request.videos[0].metadata == {"a": [1, None]}
    assert (request.id, request.concurrency, request.timeout_ms) == ("a-B_9", 99, 0)


def test_field_names_may_be_camel_case_and_keys_of_metadata_stay():
    metadata = {"createdBy": "x", "created_by": {"innerKey": 1}}
    request = parsed(
        {
            "videos": [{"prompt": "x", "inputReference": {"fileId": "f"}, "metadata": metadata}],
            "batchName": "N", "timeoutMs": 5, "metadata": metadata,
        }
    )  # fmt: skip
    assert (request.batch_name, request.timeout_ms) == ("N", 5)
    assert request.videos[0].input_reference == FileId(file_id="f")
    assert request.metadata == request.videos[0].metadata == metadata


def test_seconds_is_another_name_of_duration():
    named, usual = (parsed({"videos": [LAKE | fields]}) for fields in ({"seconds": 8}, {"duration": 8}))
    assert named.videos[0].duration == 8
    assert named.model_dump(mode="json") == usual.model_dump(mode="json")
    assert named.model_dump(exclude_unset=True) == usual.model_dump(exclude_unset=True)
    assert parsed({"videos": [LAKE | {"seconds": 8, "duration": None}]}).videos[0].duration == 8


def test_a_request_that_is_one_already_is_taken():
    request = parsed({"videos": [LAKE]})
    assert parsed(request) is request


@pytest.mark.parametrize("reference", ["a.png", "data:image/png;base64,AA==", "https://h/a.png", {"file_id": "f"}])
def test_a_reference_is_a_text_or_a_file_id(reference):
    assert parsed({"videos": [LAKE | {"input_reference": reference}]}).videos[0].input_reference


def test_the_longest_prompt_and_the_largest_batch_are_taken():
    assert len(parsed({"videos": [{"prompt": "ü" * 32_000}] * 10}).videos) == 10


# --- what is wrong


@pytest.mark.parametrize(
    ("fields", "pointer", "words"),
    [
        ({"prompt": ""}, "/videos/1/prompt", "must not be empty"),
        ({"prompt": " \n"}, "/videos/1/prompt", "must not be empty"),
        ({"prompt": "x" * 32_001}, "/videos/1/prompt", "at most 32000 characters"),
        ({"prompt": None}, "/videos/1/prompt", ""),
        ({"prompt": "a\0b"}, "/videos/1/prompt", "NUL"),
        ({"prompt": "\ud800"}, "/videos/1/prompt", "surrogates"),
        ({"duration": 0}, "/videos/1/duration", "1"),
        ({"duration": "ten"}, "/videos/1/duration", "whole number"),
        ({"duration": 1.5}, "/videos/1/duration", "whole number"),
        ({"duration": True}, "/videos/1/duration", "whole number"),
        ({"duration": -3}, "/videos/1/duration", "1"),
        ({"seconds": "ten"}, "/videos/1/seconds", "whole number"),
        ({"seconds": 0}, "/videos/1/seconds", "1"),
        ({"seconds": 8, "duration": 8}, "/videos/1/seconds", "means the same as duration"),
        ({"size": "large"}, "/videos/1/size", ""),
        ({"size": "1280x720\n"}, "/videos/1/size", ""),
        ({"size": "1280 x 720"}, "/videos/1/size", ""),
        ({"model": ""}, "/videos/1/model", ""),
        ({"metadata": []}, "/videos/1/metadata", ""),
        ({"metadata": {"a": float("nan")}}, "/videos/1/metadata", "NaN"),
        ({"metadata": {"a": "\0"}}, "/videos/1/metadata", "NUL"),
        ({"metadata": {"\0": 1}}, "/videos/1/metadata", "NUL"),
        ({"metadata": {"a": "x" * DOCUMENT_MAX_BYTES}}, "/videos/1/metadata", "65536 bytes"),
        ({"metadata": {"a": {"b": ["\ud800"]}}}, "/videos/1/metadata", "surrogates"),
        ({"seed": -1}, "/videos/1/seed", 'must be a whole number from 0 to 9223372036854775807, or "random" (got -1)'),
        ({"seed": 2**63}, "/videos/1/seed", "must be a whole number"),
        ({"seed": 2**64}, "/videos/1/seed", "must be a whole number"),
        ({"seed": True}, "/videos/1/seed", "must be a whole number"),
        ({"seed": 1.5}, "/videos/1/seed", "must be a whole number"),
        ({"seed": "often"}, "/videos/1/seed", "must be a whole number"),
        ({"takes": 0}, "/videos/1/takes", "1 or more"),
        ({"takes": 101}, "/videos/1/takes", "100 or less"),
        ({"takes": True}, "/videos/1/takes", "whole number"),
        ({"params": []}, "/videos/1/params", "object"),
        ({"params": {"x": float("inf")}}, "/videos/1/params", "NaN"),
        ({"params": {"x": "y" * DOCUMENT_MAX_BYTES}}, "/videos/1/params", "65536 bytes"),
        ({"params": {"seconds": 8}}, "/videos/1/params", "use the video's own field duration"),
        ({"params": {"n": 3}}, "/videos/1/params", "use the video's own field takes"),
        ({"params": {"input_reference[file_id]": "f"}}, "/videos/1/params", "use the video's own field input_reference"),
        ({"params": {"seconds[]": 8}}, "/videos/1/params", "must not contain seconds[]: use the video's own field duration"),
        ({"files": {"input_reference[0][image]": "a.png"}}, "/videos/1/files", "use the video's own field input_reference"),
        ({"params": {"a\r\nb": 3}}, "/videos/1/params", "control characters"),
        ({"params": {'a"b': 3}}, "/videos/1/params", "quotes"),
        ({"params": {"": 3}}, "/videos/1/params", "1 to 128 characters"),
        ({"files": {"seed": "a.png"}}, "/videos/1/files", "use the video's own field seed"),
        ({"files": {"last_frame": 7}}, "/videos/1/files/last_frame", ""),
        ({"files": {"a": "a.png"}, "params": {"a": 1}}, "/videos/1/files", "which is also in params"),
        ({"files": {"a": {"file_id": "f"}}, "params": {"a[file_id]": "g"}}, "/videos/1/files", "a, which is also in params"),
        ({"promt": "x"}, "/videos/1/promt", "unknown field; did you mean prompt?"),
        ({"matrix": {"a": [1]}}, "/videos/1/matrix", "unknown field; it is a field of the batch: put it next to videos"),
        ({"int": "x"}, "/videos/1/int", 'unknown field; put a server-specific field into params: {"int": ...}'),
        ({"fps": 24}, "/videos/1/fps", 'put a server-specific field into params: {"fps": ...}'),
        ({"a/b~c": 7}, "/videos/1/a~1b~0c", ""),
        ({"input_reference": 7}, "/videos/1/input_reference", ""),
        ({"input_reference": {"file_id": ""}}, "/videos/1/input_reference/file_id", ""),
        ({"input_reference": {"url": "x"}}, "/videos/1/input_reference/url", ""),
        ({"input_reference": "a", "inputReference": "a"}, "/videos/1/input_reference", "is given twice, also as inputReference: keep one"),
        ({"files": {"a": {"file_id": "f", "fileId": "f"}}}, "/videos/1/files/a/file_id", "given twice, also as fileId"),
        ({"metadata": {1: "x"}}, "/videos/1/metadata", "names must be strings: put it in quotes (got 1)"),
        ({"files": {7: "a.png"}}, "/videos/1/files/7", "names must be strings: put it in quotes (got 7)"),
    ],
)  # fmt: skip
def test_a_field_of_a_video_that_is_wrong_is_named(fields, pointer, words):
    error = wrong_video(**fields)
    found = {entry.field: entry for entry in error.errors}
    assert pointer in found
    assert words in found[pointer].message
    assert found[pointer].message.startswith("videos[1]")
    assert found[pointer].message in str(error)


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"videos": []}, "/videos"),
        ({"videos": "x"}, "/videos"),
        ({"videos": None}, "/videos"),
        ({"videos": ["x"]}, "/videos/0"),
        ({"videos": [{}]}, "/videos/0/prompt"),
        ({"id": "a/b"}, "/id"),
        ({"id": ""}, "/id"),
        ({"id": "x" * 65}, "/id"),
        ({"id": "x\n"}, "/id"),
        ({"id": "ü"}, "/id"),
        ({"id": "../x"}, "/id"),
        ({"concurrency": 0}, "/concurrency"),
        ({"concurrency": "many"}, "/concurrency"),
        ({"timeout_ms": -1}, "/timeout_ms"),
        ({"timeoutMs": -1}, "/timeout_ms"),
        ({"timeout_ms": False}, "/timeout_ms"),
        ({"batch_name": "x" * 257}, "/batch_name"),
        ({"batchname": "x"}, "/batchname"),
        ({"metadata": "x"}, "/metadata"),
        ({"batchName": "x", "batch_name": "x"}, "/batch_name"),
        ({1: "x"}, "/1"),
    ],
)
def test_a_field_of_a_batch_that_is_wrong_is_named(fields, pointer):
    assert pointer in {entry.field for entry in wrong({"videos": [LAKE]} | fields).errors}


@pytest.mark.parametrize("request_", [None, "x", [], 7, {}])
def test_what_is_no_request_is_refused(request_):
    assert wrong(request_).errors


def test_more_videos_than_the_setting_allows_are_refused_with_its_name():
    error = wrong({"videos": [LAKE] * 4}, max_size=3)
    assert str(error) == "videos: 4 videos are too many, expected at most 3 videos (BATCH_MAX_SIZE)"
    assert error.errors[0].field == "/videos"


def test_everything_that_is_wrong_is_listed():
    error = wrong({"videos": [{"prompt": ""}, {"prompt": "x", "duration": 0}], "id": "a b"})
    assert {entry.field for entry in error.errors} == {"/videos/0/prompt", "/videos/1/duration", "/id"}
    assert all(entry.code and entry.expected for entry in error.errors)


def test_what_was_given_is_shown_shortened_and_never_a_traceback():
    message = str(wrong_video(size="x" * 5000))
    assert len(message) < 300
    assert "\n" not in message


def nested(levels):
    document = 1
    for _ in range(levels):
        document = {"a": document}
    return document


@pytest.mark.parametrize(
    ("video", "words"),
    [
        ({"duration": 10**5000}, "must be 1000000 or less (got a number too long to show)"),
        ({"params": {"a": 10**5000}}, "number of thousands of digits"),
        ({"params": nested(300)}, "videos[0].params: must not be nested so deeply (got {'a'"),
        ({"files": {f"f{number}": {"file_id": "f"} for number in range(17)}}, "must have at most 16 entries (got"),
        ({"model": "m" * 257}, "model: must have at most 256 characters (got"),
        ({"model": ""}, "model: must have at least 1 character (got"),
    ],
)
def test_what_can_hardly_be_read_is_refused_in_one_plain_sentence(video, words):
    with pytest.raises(InvalidRequest) as caught:
        BatchVideoRequest.parse({"videos": [{"prompt": "a", **video}]}, max_size=10)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("amount", "words"),
    [
        ("NaN", "must be a finite number"),
        ("much", "must be a number"),
        ([], "must be a number"),
        ("0.0000001", "must have at most 6 decimal places"),
    ],
)
def test_an_amount_that_is_none_is_refused_in_plain_words(amount, words):
    with pytest.raises(InvalidRequest) as caught:
        BatchVideoRequest.parse({"videos": [{"prompt": "a"}], "budget": {"amount": amount, "unit": "USD"}}, max_size=10)
    assert str(caught.value) == f"budget[0].amount: {words} (got {amount!r})"


def test_a_backslash_before_a_u_is_no_nul_character():
    video = {"prompt": "a", "params": {"path": "C:\\u0000"}}
    assert BatchVideoRequest.parse({"videos": [video]}, max_size=10).videos[0].params == video["params"]


def test_a_request_nested_too_deeply_is_refused():
    deep = {}
    for _ in range(50_000):
        deep = {"a": deep}
    assert wrong({"videos": [LAKE], "metadata": deep}).errors
    assert wrong({"videos": [LAKE | {"metadata": deep}]}).errors
    while deep:
        deep = deep.pop("a")  # or the interpreter's own clearing goes as deep


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
FIELDS = ["videos", "batch_name", "batchName", "metadata", "id", "concurrency", "timeout_ms", "prompt", "duration",
          "size", "model", "input_reference"]  # fmt: skip


@given(st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=4), json_values | st.lists(json_values), max_size=6))
def test_no_request_is_an_error_of_ours(request_):
    refused = []
    try:
        parsed(request_)
    except InvalidRequest as error:
        refused += error.errors
    assert all(entry.field == "" or entry.field.startswith("/") for entry in refused)


def test_metadata_are_checked_by_themselves():
    assert check_metadata({"a": [1, {"B": None}]}) == {"a": [1, {"B": None}]}
    for metadata in ([], "x", {"a": float("inf")}, {1: 2}, {"a": object()}):
        with pytest.raises(InvalidRequest) as caught:
            check_metadata(metadata)
        assert {entry.field for entry in caught.value.errors} == {"/metadata"}


# --- what is answered


@pytest.mark.parametrize(
    ("counts", "pending", "percentage"),
    [((5, 3, 2, 0, 0), 0, 100), ((3, 1, 0, 0, 2), 2, 33), ((3, 1, 1, 0, 1), 1, 66), ((7, 0, 0, 7, 0), 0, 100),
     ((1000, 999, 0, 0, 1), 1, 99)],
)  # fmt: skip
def test_progress_follows_from_the_counts(counts, pending, percentage):
    names = ("total", "completed", "failed", "cancelled", "processing")
    progress = progress_of(a_batch(**dict(zip(names, counts, strict=True))))
    assert (progress.pending, progress.percentage) == (pending, percentage)


FILE = {"path": "/v/\u00fc 1.mp4", "bytes": 1, "sha256": "s", "content_type": "video/mp4"}


def test_a_file_that_was_recorded_by_its_path_alone_is_shown_with_its_address():
    shown = Job.of(a_job(1, video=FILE)).video
    assert (shown.uri, shown.path, shown.url) == ("file:///v/%C3%BC%201.mp4", FILE["path"], None)
    assert VideoFile.model_validate(FILE) == shown


def test_whoever_answers_tells_its_own_url_and_an_event_the_recorded_one():
    record = a_job(2, batch_id="nature", video={**FILE, "url": "http://recorded/2"})
    assert Job.of(record).video.url == "http://recorded/2"
    urls = [Job.of(with_urls([record], base)[0]).video.url for base in ("https://here.example/x", None)]
    assert urls == ["https://here.example/x/api/v1/batches/nature/jobs/2/video", None]
    assert record.video["url"] == "http://recorded/2"


def test_a_file_that_was_removed_has_its_address_and_the_time_of_it():
    record = a_job(2, video={**FILE, "uri": "s3://b/x.mp4", "url": "http://recorded/2", "removed_at": NOON})
    shown = Job.of(record).video.model_dump()
    assert shown == {**FILE, "uri": "s3://b/x.mp4", "path": None, "url": None, "removed_at": shown["removed_at"]}
    assert shown["removed_at"].timestamp() == NOON
    assert Job.of(with_urls([record], "https://here.example")[0]).video.url is None


def test_a_job_shows_its_place_its_error_and_its_file():
    error = {"code": "timeout", "message": "m", "retryable": True, "detail": {"status": 5}}
    video = {"uri": "file:///p", "path": "/p", "url": None, "bytes": 1, "sha256": "s", "content_type": "video/mp4"}
    job = Job.of(a_job(3, status=JobStatus.FAILED, error=error, video=video, started_at=NOON))
    assert (job.id, job.index, job.error.model_dump(), job.video.model_dump()) == ("nature-03", 3, error, video)
    assert job.started_at == datetime(2026, 9, 21, 14, 13, 20, tzinfo=UTC)
    assert job.completed_at is None


def test_a_job_shows_exactly_the_fields_of_the_contract():
    assert set(Job.model_fields) == {
        "id", "index", "status", "prompt", "duration", "model", "size", "seed", "params", "take", "metadata",
        "remote_id", "progress", "attempts", "error", "video", "warnings", "reported", "created_at", "updated_at",
        "started_at", "completed_at", "cost",
    }  # fmt: skip


def test_a_batch_shows_exactly_the_fields_of_the_contract():
    assert set(Batch.model_fields) == {
        "id", "name", "job_ids", "jobs", "status", "progress", "metadata", "error", "concurrency", "created_at",
        "updated_at", "started_at", "completed_at", "cost",
    }  # fmt: skip


def test_a_batch_shows_its_jobs_or_only_their_ids():
    batch = Batch.of(a_batch(total=2), some_jobs(2))
    assert batch.job_ids == [job.id for job in batch.jobs] == ["nature-01", "nature-02"]
    assert Batch.of(a_batch(total=2), []).job_ids == batch.job_ids


@pytest.mark.parametrize("status", BatchStatus)
def test_a_batch_knows_whether_it_has_ended(status):
    assert Batch.of(a_batch(status=status), []).finished == (status in FINAL_BATCH)


def test_a_jobs_id_has_at_least_two_digits():
    assert [job_id("b", 1), job_id("b", 99), job_id("b", 10_000)] == ["b-01", "b-99", "b-10000"]


def test_a_digest_does_not_depend_on_the_order_of_keys():
    assert canonical_digest({"a": 1, "b": "ü"}) == canonical_digest({"b": "ü", "a": 1})
    assert canonical_digest({"a": 1}) != canonical_digest({"a": "1"})


def test_a_moment_is_aware_and_none_stays_none():
    assert moment(NOON).tzinfo is UTC
    assert moment(None) is None
