"""What gateways put around the answer of the server behind them."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.errors import ErrorCode
from actors.sora.failures import failed_inside
from actors.sora.wire import inner_id


def wrapped(text: str) -> str:
    return "video_" + base64.b64encode(text.encode()).decode()


MADE = "litellm:custom_llm_provider:hosted_vllm;model_id:films;video_id:video_gen_1"
LOOKED_AT = f"{MADE};deployment_id:{'0af3' * 16};served_model:wan"
FAILED = {
    "id": "video_gen_1", "object": "video", "status": "failed", "prompt": "a boat",
    "error": {"code": 500, "message": "CUDA out of memory"},
}  # fmt: skip


def error(text: str) -> dict:
    return {"error": {"message": text, "type": None, "param": None, "code": "500"}}


@pytest.mark.parametrize(
    ("remote_id", "inner"),
    [
        (wrapped(MADE), "video_gen_1"),
        (wrapped(LOOKED_AT), "video_gen_1"),
        (wrapped(MADE).rstrip("="), "video_gen_1"),
        (wrapped(MADE.replace("video_gen_1", wrapped(MADE))), "video_gen_1"),
        ("video_68d7", "video_68d7"),
        (wrapped("nothing of a proxy's"), wrapped("nothing of a proxy's")),
        (wrapped("litellm:model_id:films"), wrapped("litellm:model_id:films")),
        ("", ""),
    ],
)
def test_a_proxys_id_tells_the_id_behind_it(remote_id, inner):
    assert inner_id(remote_id) == inner


@given(st.text())
def test_no_id_is_an_error_of_ours(text):
    assert isinstance(inner_id(text), str)
    assert isinstance(inner_id("video_" + text), str)


@pytest.mark.parametrize("asked", ["video_gen_1", wrapped(MADE), wrapped(LOOKED_AT)])
@pytest.mark.parametrize(
    "body",
    [
        error(f"litellm.InternalServerError: Hosted_vllmException - {json.dumps(FAILED)}\n\nLiteLLM: no fallback"),
        error(json.dumps(FAILED, indent=2)),
        error(f"{{upstream}} said {json.dumps({'error': FAILED})}"),
        error(f"upstream said {json.dumps(error('again: ' + json.dumps(FAILED)))}"),
        {"detail": [{"msg": json.dumps(FAILED)}]},
        {"error": {"message": "it failed", "upstream": FAILED}},
    ],
    ids=range(6),
)
def test_a_failed_video_is_found_in_an_error_of_any_gateway(body, asked):
    video = failed_inside(body, asked)
    assert (video.failure.code, video.failure.message) == (ErrorCode.GENERATION_FAILED, "CUDA out of memory")


def test_a_blocked_video_that_is_quoted_is_named_so():
    blocked = FAILED | {"error": {"code": "moderation_blocked", "message": "not this"}}
    assert failed_inside(error(json.dumps(blocked)), "video_gen_1").failure.code is ErrorCode.MODERATION_BLOCKED


@pytest.mark.parametrize(
    "body",
    [
        None,
        "no JSON",
        error("the upstream is away"),
        error(json.dumps(FAILED | {"id": "video_gen_2"})),
        error(json.dumps(FAILED | {"status": "in_progress"})),
        error(json.dumps(FAILED | {"status": "completed"})),
        error(json.dumps({key: value for key, value in FAILED.items() if key != "object"})),
        error(json.dumps(FAILED)[:-1]),
        # Another video's prompt, which anybody may have written.
        error(json.dumps(FAILED | {"id": "video_gen_2", "prompt": json.dumps(FAILED)})),
        error(json.dumps(FAILED | {"status": "queued", "prompt": json.dumps(FAILED)})),
        error(json.dumps(FAILED | {"status": "queued", "metadata": FAILED})),
        error("{" * 100_000 + json.dumps(FAILED)),
        error('{"a":' * 100_000),
    ],
    ids=range(13),
)
def test_nothing_else_is_taken_for_it(body):
    assert failed_inside(body, "video_gen_1") is None
