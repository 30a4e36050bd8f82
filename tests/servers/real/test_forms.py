"""What we send, held against the request models and form parsers of vLLM-Omni and SGLang themselves.

Their own servers take it, each with a stub in place of its model, and tell what arrived behind their routes. Skipped
where their packages are not installed (`python -m tests.servers.real --install`).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.servers.real.desk import Desk
from tests.servers.real.server import StubbedServer
from tests.servers.real.sglang import Sglang
from tests.servers.real.trials import JSON, known, png
from tests.servers.real.vllm_omni import VllmOmni

pytestmark = pytest.mark.integration

PARAMS: dict[str, Any] = {
    "negative_prompt": 'blurred, "text" — ü',
    "fps": 12,
    "num_inference_steps": 20,
    "guidance_scale": 4.5,
    "enable_frame_interpolation": False,
}
needs_params = pytest.mark.skipif(not known("params"), reason="this version's requests have no `params`")


def started(kind: type[StubbedServer]) -> Iterator[StubbedServer]:
    if kind.environment.version is None:
        pytest.skip(f"{kind.title} is not installed: {kind.environment.remedy}")
    with kind() as server:
        yield server


@pytest.fixture(scope="module")
def vllm_omni() -> Iterator[StubbedServer]:
    yield from started(VllmOmni)


@pytest.fixture(scope="module")
def sglang() -> Iterator[StubbedServer]:
    yield from started(Sglang)


def arrived(server: StubbedServer, folder: Path, video: dict[str, Any], **settings: str) -> dict[str, Any]:
    """Have one video made; return what the server began it with."""
    (folder / "picture.png").write_bytes(png())
    desk = Desk("form", folder, server.user)
    before = len(server.asked())
    (job,) = desk.run(video, **settings)["jobs"]
    assert job["status"] == "completed", job["error"]
    (asked,) = server.asked()[before:]
    return asked


def test_vllm_omni_takes_the_form(vllm_omni: StubbedServer, tmp_path: Path) -> None:
    video = {"prompt": 'A fox — "quoted"\nin two lines', "duration": 4, "size": "832x480"}
    asked = arrived(vllm_omni, tmp_path, video | {"input_reference": "picture.png"})
    assert asked["reference_image"] == "ReferenceImage"
    assert (asked["prompt"], asked["seconds"], asked["size"]) == (video["prompt"], "4", "832x480")


@pytest.mark.parametrize("settings", [{}, JSON], ids=["multipart", "json"])
def test_sglang_takes_the_form_and_the_document(
    sglang: StubbedServer, tmp_path: Path, settings: dict[str, str]
) -> None:
    video = {"prompt": 'A fox — "quoted"\nin two lines', "duration": 4, "size": "832x480"}
    asked = arrived(sglang, tmp_path, video, **settings)
    assert asked["prompt"] == video["prompt"]
    assert (asked["width"], asked["height"], asked["num_frames"]) == (832, 480, 96)


def test_sglang_takes_a_picture_in_the_form(sglang: StubbedServer, tmp_path: Path) -> None:
    sglang.with_pictures()
    asked = arrived(sglang, tmp_path, {"prompt": "Of a picture", "input_reference": "picture.png"})
    sglang.mend()
    assert asked["image"].endswith("picture.png")


@needs_params
def test_vllm_omni_takes_seed_and_params(vllm_omni: StubbedServer, tmp_path: Path) -> None:
    asked = arrived(
        vllm_omni, tmp_path, {"prompt": "With params", "seed": 7, "params": {**PARAMS, "extra_params": {"a": [1]}}}
    )
    assert {name: asked[name] for name in ("seed", *PARAMS)} == {"seed": 7, **PARAMS}
    assert asked["extra_params"] == {"a": [1]}


@needs_params
@pytest.mark.parametrize("settings", [{}, JSON], ids=["multipart", "json"])
def test_sglang_takes_seed_and_params(sglang: StubbedServer, tmp_path: Path, settings: dict[str, str]) -> None:
    asked = arrived(sglang, tmp_path, {"prompt": "With params", "seed": 7, "params": PARAMS}, **settings)
    wanted = {"seed": 7} | {name: value for name, value in PARAMS.items() if name in asked}
    assert {name: asked[name] for name in wanted} == wanted
    assert len(wanted) == 5
