"""The Videos API as its servers speak it: the recorded bodies of WIRE.md 3.8, and whatever else may come."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.errors import ErrorCode
from actors.sora.failures import REFUSALS, http_failure, masked, redirected, retry_after
from actors.sora.wire import DETAIL_MAX, Phase, error_words, http_date, parse_json, parse_video, phase_of, poll_hint
from storage.secrets import Secrets

OPENAI = {
    "id": "video_68d7", "object": "video", "created_at": 1758941485, "status": "queued", "model": "sora-2-pro",
    "progress": 0, "seconds": "8", "size": "1280x720",
}  # fmt: skip
VLLM_FAILED = {
    "id": "video_gen_1", "object": "video", "status": "failed", "progress": 0, "seconds": "4", "size": None,
    "completed_at": 1795464443, "error": {"code": 500, "message": "CUDA out of memory"}, "media_type": "video/mp4",
}  # fmt: skip
SGLANG_FAILED = {
    "id": "3f0c", "object": "video", "status": "failed", "progress": 37, "error": {"message": "boom"}, "url": None,
    "urls": None, "file_path": None, "quality": "standard",
}  # fmt: skip
TRT = {
    "id": "video_1", "object": "video", "status": "queued", "progress": None, "duration": 4.0, "fps": 16.0,
    "size": "832x480", "error": None, "created_at": 1795464443, "prompt": "a lake",
}  # fmt: skip
DYNAMO = {
    "id": "d", "object": "video", "model": "wan", "status": "completed", "progress": 100, "created": 1795464443,
    "data": [{"output_format": "mp4", "url": "http://host/d.mp4", "b64_json": None}], "error": None,
    "inference_time_s": 61.2,
}  # fmt: skip


def failed(error):
    return parse_video({"id": "v", "status": "failed", "error": error}).failure


# --- videos


def test_a_create_reply_without_its_nullable_fields_is_read():
    video = parse_video(OPENAI)
    assert (video.id, video.phase, video.progress, video.created_at) == ("video_68d7", Phase.WORKING, 0, 1758941485)
    assert (video.model, video.seconds, video.size, video.prompt) == ("sora-2-pro", "8", "1280x720", None)
    assert (video.failure, video.urls, video.inline) == (None, (), None)


def test_a_blocked_video_is_named_so():
    message = "Your request was blocked by our moderation system."
    failure = failed({"code": "moderation_blocked", "message": message})
    assert (failure.code, failure.message) == (ErrorCode.MODERATION_BLOCKED, message)
    assert not failure.code.retryable


def test_a_failed_job_that_comes_with_a_number_for_its_code_is_read():
    video = parse_video(VLLM_FAILED)
    assert video.phase is Phase.ENDED_BADLY
    assert (video.failure.code, video.failure.message) == (ErrorCode.GENERATION_FAILED, "CUDA out of memory")
    assert video.failure.detail["code"] == "500"
    assert video.size is None


def test_a_failed_job_without_a_code_is_read():
    video = parse_video(SGLANG_FAILED)
    assert (video.progress, video.failure.message, video.failure.detail["code"]) == (37, "boom", None)


def test_a_video_that_was_deleted_has_ended_badly_and_says_so():
    video = parse_video({"id": "3f0c", "object": "video", "status": "deleted", "progress": 37})
    assert video.failure.message == "the server reported the status 'deleted' without a reason"


def test_a_reply_whose_progress_is_null_is_read():
    video = parse_video(TRT)
    assert (video.progress, video.prompt, video.seconds, video.phase) == (None, "a lake", None, Phase.WORKING)


def test_the_only_reply_of_a_server_that_makes_one_wait_is_read():
    video = parse_video(DYNAMO)
    assert (video.phase, video.created_at, video.urls) == (Phase.READY, 1795464443, ("http://host/d.mp4",))


def test_a_file_inside_the_reply_is_found():
    body = DYNAMO | {"data": [{"url": None, "b64_json": "AAAA"}]}
    assert (parse_video(body).inline, parse_video(body).urls) == ("AAAA", ())


def test_a_proxys_long_id_is_kept_as_it_came():
    remote_id = "video_bGl0ZWxsbTpjdXN0b21fbGxtX3Byb3ZpZGVyOm9wZW5haTttb2RlbF9pZDpzaW0=="
    video = parse_video({"id": remote_id, "status": "queued", "usage": {"duration_seconds": 4.0}})
    assert video.id == remote_id


def test_a_reply_with_three_fields_is_read():
    video = parse_video({"id": "job-abc123", "polling_url": "/api/v1/videos/job-abc123", "status": "pending"})
    assert (video.id, video.phase, video.urls) == ("job-abc123", Phase.WORKING, ())


def test_a_failed_job_whose_error_is_a_text_is_read():
    assert failed("the GPU fell off").message == "the GPU fell off"


@pytest.mark.parametrize(
    ("body", "remote_id"),
    [({"id": 7}, "7"), ({"task_id": "t"}, "t"), ({"id": "", "task_id": "t"}, "t"), ({"id": None}, None), ({}, None)],
)
def test_an_id_is_read_where_servers_put_it(body, remote_id):
    assert parse_video({"status": "queued", **body}).id == remote_id


@pytest.mark.parametrize("remote_id", ["a\0b", "a\ud800", {"a": 1}, ["a"], 1.5])
def test_an_id_that_nobody_could_keep_is_none(remote_id):
    assert parse_video({"status": "queued", "id": remote_id}).id is None


@pytest.mark.parametrize("body", [None, [], "video", 7, {}, {"id": "v"}, {"id": "v", "status": 1}, {"deleted": True}])
def test_what_has_no_status_is_no_video(body):
    assert parse_video(body) is None


@pytest.mark.parametrize(
    ("field", "value", "read"),
    [
        ("progress", 42.9, 42), ("progress", "42", 42), ("progress", 250, 100), ("progress", -3, 0),
        ("progress", "half", None), ("progress", 10**400, None), ("progress", float("nan"), None),
        ("seconds", 4, "4"), ("seconds", 4.0, "4"), ("seconds", "4.5", "4.5"), ("seconds", "long", None),
        ("created_at", "1758941485", 1758941485.0), ("created_at", {}, None), ("created_at", float("inf"), None),
        ("model", 5, None), ("model", "", None), ("size", ["1x1"], None), ("prompt", {"a": 1}, None),
    ],
)  # fmt: skip
def test_a_field_is_read_in_any_form_or_counts_as_untold(field, value, read):
    assert getattr(parse_video({"id": "v", "status": "queued", field: value}), field) == read


@pytest.mark.parametrize(
    ("progress", "read"),
    [(45, 45), ("45", 45), ("45%", 45), (" 45 % ", 45), ("45.9%", 45), ("145%", 100), ("%", None), ("half", None)],
)
def test_progress_is_read_with_and_without_its_unit(progress, read):
    assert parse_video({"id": "v", "status": "in_progress", "progress": progress}).progress == read


@pytest.mark.parametrize(
    ("status", "location", "place", "way_out"),
    [
        (308, "https://h.example/v1/videos", "https://h.example/v1/videos", "set OPENAI_BASE_URL=https://h.example/v1"),
        (301, "http://h.example:8080/v1/videos", "http://h.example:8080/v1/videos", "=http://h.example:8080/v1"),
        (
            302,
            "//other.example/v1/videos/",
            "http://other.example/v1/videos/",
            "OPENAI_BASE_URL=http://other.example/v1",
        ),
        (307, "/api/v1/videos", "http://h.example/api/v1/videos", "set OPENAI_BASE_URL=http://h.example/api/v1"),
        (307, "/v1/videos/", "http://h.example/v1/videos/", "without the slash"),
        (308, "https://me:secret@h.example/v1/videos", "https://h.example/v1/videos", "=https://h.example/v1"),
    ],
)
def test_a_create_that_is_redirected_to_its_own_path_made_nothing(status, location, place, way_out):
    failure = redirected(status, location, "http://h.example/v1/videos")
    assert failure.code is ErrorCode.NETWORK
    assert f"redirected to {place} (HTTP {status}), and nothing was made" in failure.message
    assert failure.message.endswith(way_out) or way_out in failure.message
    assert "secret" not in failure.message


@pytest.mark.parametrize(
    ("status", "location"),
    [
        (303, "https://h.example/v1/videos"),
        (300, "https://h.example/v1/videos"),
        (200, "https://h.example/v1/videos"),
        (308, ""),
        (302, "http://h.example/v1/videos"),
        (302, "http://H.example:80/v1/videos"),
        (302, "/v1/videos"),
        (302, "https://h.example/v1/videos/video_1"),
        (302, "https://login.example/?next=/v1/videos"),
        (302, "https://h.example/v1/videos?page=1"),
        (302, "https://h.example/"),
        (308, "mailto:a@example/videos"),
        (308, "https://[::1/v1/videos"),
        (308, "https://h.example:port/v1/videos"),
    ],
)
def test_of_every_other_redirect_nothing_is_known(status, location):
    assert redirected(status, location, "http://h.example/v1/videos") is None


def test_every_place_of_a_files_address_is_looked_at():
    body = {
        "id": "v", "status": "done", "url": "http://a", "urls": ["https://b", "file:///etc/passwd", 5],
        "unsigned_urls": ["https://c"], "data": [{"url": "https://d"}, "x", {"url": None}],
    }  # fmt: skip
    assert parse_video(body).urls == ("http://a", "https://b", "https://c", "https://d")


@pytest.mark.parametrize("status", ["completed", "succeeded", "success", "done", "COMPLETED", "Done"])
def test_good_ends(status):
    assert phase_of(status) is Phase.READY


@pytest.mark.parametrize(
    "status", ["failed", "error", "cancelled", "canceled", "expired", "deleted", "rejected", "FAILED"]
)
def test_bad_ends(status):
    assert phase_of(status) is Phase.ENDED_BADLY


@pytest.mark.parametrize(
    "status",
    ["queued", "in_progress", "pending", "processing", "generating", "postprocessing", "NOT_START", "unknown", "", "x"],
)
def test_every_other_status_means_not_finished(status):
    assert phase_of(status) is Phase.WORKING


# --- errors


@pytest.mark.parametrize(
    ("status", "body", "code", "words"),
    [
        (
            400,
            {"error": {"message": "Invalid type for 'input_reference': ..", "type": "invalid_request_error",
                       "param": "input_reference", "code": "invalid_type"}},
            ErrorCode.INVALID_REQUEST, "Invalid type",
        ),
        (
            409,
            {"error": {"message": "Asynchronous video jobs is not supported with --api-server-count > 1", "code": 409}},
            ErrorCode.SERVER_ERROR, "--api-server-count",
        ),
        (404, {"detail": "Video not found"}, ErrorCode.NOT_FOUND, "Video not found"),
        (404, {"detail": "Generation is still in-progress"}, ErrorCode.NOT_FOUND, "in-progress"),
        (503, {"error": "scheduler failure"}, ErrorCode.SERVER_ERROR, "scheduler failure"),
        (
            429,
            {"error": {"message": "litellm.RateLimitError: ..", "type": "throttling_error", "code": "429"}},
            ErrorCode.RATE_LIMITED, "litellm.RateLimitError",
        ),
        (405, {"detail": "Method Not Allowed"}, ErrorCode.NOT_FOUND, "Method Not Allowed"),
        (400, {"message": "bad", "type": "x", "code": 400}, ErrorCode.INVALID_REQUEST, "bad"),
        (422, {"detail": [{"loc": ["body", "prompt"], "msg": "field required"}]},
         ErrorCode.INVALID_REQUEST, "field required"),
        (401, None, ErrorCode.AUTHENTICATION, "HTTP 401"),
        (402, "", ErrorCode.QUOTA_EXCEEDED, "HTTP 402"),
        (403, {"error": {"message": "no"}}, ErrorCode.PERMISSION, "no"),
        (408, None, ErrorCode.TIMEOUT, "HTTP 408"),
        (413, None, ErrorCode.INVALID_REQUEST, "HTTP 413"),
        (500, "Internal Server Error", ErrorCode.SERVER_ERROR, "Internal Server Error"),
        (302, None, ErrorCode.SERVER_ERROR, "HTTP 302"),
        (400, {"error": {"code": "sentinel_block", "message": "no"}}, ErrorCode.MODERATION_BLOCKED, "no"),
        (429, {"error": {"code": "insufficient_quota", "message": "pay"}}, ErrorCode.QUOTA_EXCEEDED, "pay"),
        (429, {"error": {"message": "You exceeded your current quota"}}, ErrorCode.QUOTA_EXCEEDED, "quota"),
    ],
)  # fmt: skip
def test_an_http_error_gets_a_name_and_keeps_the_servers_words(status, body, code, words):
    failure = http_failure(status, body, "polling video v")
    assert failure.code is code
    assert failure.message.startswith(f"polling video v failed with HTTP {status}")
    assert words in failure.message
    assert failure.detail["status"] == status


def test_only_these_answers_to_a_create_prove_that_nothing_was_made():
    assert {400, 401, 402, 403, 404, 405, 413, 415, 422, 429} == REFUSALS


def test_what_a_server_says_is_shortened():
    _, message = error_words({"error": {"message": "x" * 9999}})
    assert (len(message), message[-3:]) == (DETAIL_MAX, "...")


@pytest.mark.parametrize("text", ["a\0b", "a\ud800b"])
def test_what_a_server_says_can_be_stored(text):
    for body in ({"error": {"code": text, "message": text}}, {"error": text}, text, {"detail": [text]}):
        said = http_failure(500, body, "x").detail
        for words in (said["code"] or "", said["message"]):
            assert "\0" not in words
            words.encode()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
FIELDS = ["id", "status", "error", "detail", "message", "code", "progress", "created_at", "created", "seconds", "data",
          "url", "urls", "unsigned_urls", "prompt"]  # fmt: skip


@given(st.dictionaries(st.sampled_from(FIELDS), json_values), st.integers(100, 599))
def test_no_body_of_any_server_is_an_error_of_ours(body, status):
    failure = http_failure(status, body, "x")
    assert isinstance(failure.code, ErrorCode)
    video = parse_video(body)
    if video is not None:
        assert (video.failure is not None) == (video.phase is Phase.ENDED_BADLY)
        assert video.progress is None or 0 <= video.progress <= 100


@pytest.mark.parametrize("text", [b"", b"<html>", b"\xff\xfe", b"[" * 100_000, b"{", b"[" * 999 + b"]" * 999])
def test_what_is_no_json_is_none(text):
    assert parse_json(text) is None


def test_no_pause_is_longer_than_a_day():
    assert retry_after({"retry-after": "1e14"}) == 86_400
    assert retry_after({"retry-after": "Fri, 31 Dec 9999 23:59:59 GMT"}) == 86_400


@pytest.mark.parametrize("id_", [".", "..", "x" * 1025, "a\0b", "\ud800"])
def test_an_id_that_can_not_be_asked_for_is_none(id_):
    assert parse_video({"id": id_, "status": "queued"}).id is None


@pytest.mark.parametrize("time", [-1, 253_402_300_800, 1e300, 1_764_000_000_000])
def test_a_time_that_can_not_be_shown_is_none(time):
    assert parse_video({"id": "v", "status": "queued", "created_at": time}).created_at is None


def test_json_is_read_from_bytes():
    assert parse_json(b'{"a": 1}') == {"a": 1}


# --- headers


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "121"}, 121.0),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:10 GMT"}, 10.0),
        ({"retry-after": "Wed, 21 Oct 2026 07:27:00 GMT"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after-ms": "1500", "retry-after": "7"}, 1.5),
        ({"retry-after-ms": "soon", "retry-after": "7"}, 7.0),
        ({"llm_provider-retry-after": "7"}, 7.0),
        ({"llm_provider-retry-after-ms": "250"}, 0.25),
        ({"retry-after": "soon", "llm_provider-retry-after": "3"}, 3.0),
        ({"retry-after": "2", "llm_provider-retry-after": "3"}, 2.0),
    ],
)
def test_a_wait_is_read_in_every_form(headers, seconds):
    now = http_date("Wed, 21 Oct 2026 07:28:00 GMT")
    assert retry_after(headers, now) == seconds


def test_a_date_to_wait_for_is_read_by_the_clock_that_told_it():
    headers = {"retry-after": "Wed, 21 Oct 2026 07:28:09 GMT", "date": "Wed, 21 Oct 2026 07:28:00 GMT"}
    assert retry_after(headers) == 9.0


@pytest.mark.parametrize(
    ("value", "seconds"), [("1500", 1.5), ("9e9", 86_400.0), ("0", None), ("-5", None), ("soon", None), (None, None)]
)
def test_a_poll_hint_is_milliseconds(value, seconds):
    assert poll_hint({} if value is None else {"openai-poll-after-ms": value}) == seconds


@given(st.text())
def test_no_header_is_an_error_of_ours(value):
    seconds = retry_after({"retry-after": value})
    assert seconds is None or seconds >= 0
    poll_hint({"openai-poll-after-ms": value})
    http_date(value)


@pytest.mark.parametrize(
    "value", [None, "", "yesterday", "Wed, 99 Oct 2026 07:28:10 GMT", "Wed, 21 Oct 99999 07:28:10 GMT", "0"]
)
def test_what_is_no_date_is_none(value):
    assert http_date(value) is None


def test_a_secret_is_hidden_in_what_a_video_tells_and_is_recorded():
    video = {"id": "k3y!", "prompt": "k3y!", "size": "k3y!", "revised_prompt": "with k3y!"}
    hidden = masked({"data": [video]}, Secrets(["k3y!"]).mask)["data"][0]
    assert hidden == {"id": "k3y!", "prompt": "k3y!", "size": "***", "revised_prompt": "with ***"}


def test_a_secret_that_is_quoted_is_taken_out_of_the_words_and_of_nothing_else():
    said = {"error": {"code": "bad k3y!", "message": "not k3y!", "param": [{"k3y!": 1}]}, "detail": ["k3y!"]}
    video = {
        "id": "video_k3y!",
        "status": "failed",
        "prompt": "k3y!",
        "data": [{"b64_json": "k3y!", "message": "k3y!"}],
    }
    hidden = masked({**video, **said}, Secrets(["k3y!"]).mask)
    assert hidden == {
        **video,
        "error": {"code": "bad ***", "message": "not ***", "param": [{"***": 1}]},
        "detail": ["***"],
        "data": [{"b64_json": "k3y!", "message": "***"}],
    }
    assert masked("k3y! is wrong", Secrets(["k3y!"]).mask) == "*** is wrong"
    assert masked(None, Secrets(["k3y!"]).mask) is None


@pytest.mark.parametrize(
    ("status", "message", "code", "way_out"),
    [
        (400, "No connected db.", ErrorCode.AUTHENTICATION, "check OPENAI_API_KEY"),
        (400, "Model mismatch: 'a' is not served", ErrorCode.INVALID_REQUEST, "set SORA_MODEL"),
        (404, "Model not found", ErrorCode.INVALID_REQUEST, "set SORA_MODEL"),
        (
            409,
            "not supported with --api-server-count > 1",
            ErrorCode.SERVER_ERROR,
            "start vLLM-Omni with --api-server-count 1",
        ),
        (
            400,
            "LLM Provider NOT provided",
            ErrorCode.INVALID_REQUEST,
            "set SORA_HEADERS='custom-llm-provider: PROVIDER'",
        ),
        (407, "", ErrorCode.SERVER_ERROR, "set HTTP_PROXY=http://USER:PASSWORD@HOST:PORT"),
    ],
)
def test_what_a_server_means_is_told_with_what_to_set(status, message, code, way_out):
    failure = http_failure(status, {"error": {"message": message}}, "creating the video")
    assert failure.code is code
    assert failure.message.startswith(
        f"creating the video failed with HTTP {status}: {message}"[: 44 if message else 34]
    )
    assert way_out in failure.message
