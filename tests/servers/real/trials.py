"""What is tried with each server, as a user would: with `sora-batch` alone. Each tells what happened.

A trial's prompts begin with its name, so that what it had made can be counted behind the server's routes.
"""

import signal
import struct
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from actors.batch.requests import BatchVideoRequest, VideoRequest
from tests.integration.support import until
from tests.servers.real.desk import Desk
from tests.servers.real.server import Server, SteeredServer
from tests.servers.real.tap import Tap

LARGE = 100_000_000
JSON = {"SORA_REQUEST_FORMAT": "json"}


@dataclass(frozen=True)
class Outcome:
    """What a trial found. `works` is None where nothing could be tried."""

    works: bool | None
    told: str


Trial = Callable[[SteeredServer, Desk], Outcome]


class PaidTwice(AssertionError):
    """A promise is broken: a video was begun twice."""


def check_paid(server: Server, desk: Desk) -> int:
    """Count what a trial had made.

    Raises:
        PaidTwice: something that need not have been made again was.
    """
    made = {prompt: count for prompt, count in server.made().items() if prompt.startswith(f"{desk.name}:")}
    twice = {prompt: count for prompt, count in made.items() if count > 1 + desk.again[prompt]}
    if twice:
        raise PaidTwice(f"made more than once: {twice}")
    return sum(made.values())


def known(field: str) -> bool:
    """Whether this version's requests have a field."""
    return field in VideoRequest.model_fields or field in BatchVideoRequest.model_fields


def doctor(_: Server, desk: Desk) -> Outcome:
    checks = desk("doctor", "--json").json()["checks"]
    (check,) = (check for check in checks if check["name"] == "server")
    return Outcome(check["ok"], check["message"].partition("/v1: ")[2] or check["message"])


def ten(_: Server, desk: Desk) -> Outcome:
    return _batch_of(10, desk)


def hundred(_: Server, desk: Desk) -> Outcome:
    return _batch_of(100, desk)


def _batch_of(count: int, desk: Desk) -> Outcome:
    began = time.monotonic()
    batch = desk.run(*(desk.video(f"film {number}") for number in range(count)))
    seconds = time.monotonic() - began
    audit = desk("audit", "--checksums")
    told = f"{states(batch)} in {seconds:.0f} s; `audit --checksums` ends with {audit.code}"
    return Outcome(batch["progress"]["completed"] == count, told)


def partial(_: Server, desk: Desk) -> Outcome:
    batch = desk.run(desk.video("a good one"), desk.video("a bad one [fail]"))
    ended = [job["status"] for job in batch["jobs"]]
    retried = desk("retry", desk.name, "--job", "2", "--prompt", f"{desk.name}: a better one", "--json")
    what = error(batch["jobs"][1])
    told = f"{states(batch)}; {what}; retried with another prompt: {states(desk.told(retried))}"
    named = batch["jobs"][1]["error"] is not None and batch["jobs"][1]["error"]["code"] == "generation_failed"
    return Outcome(ended == ["completed", "failed"] and named and retried.code == 0, told)


def cancel(server: SteeredServer, desk: Desk) -> Outcome:
    server.hold()
    running = desk.begin(*desk.words(desk.video("one"), desk.video("two")))
    desk.wait_until_made(2)
    began = time.time()
    done = desk("cancel", desk.name, "--json")
    code = desk.end(running).code
    ended = datetime.fromisoformat(desk("status", desk.name, "--json").json()["completed_at"]).timestamp()
    deletes = _deletes(desk)
    server.release()
    desk.again.update(f"{desk.name}: {which}" for which in ("one", "two"))
    retried = desk.told(desk("retry", desk.name, "--json"))
    told = states(retried)
    if retried["status"] != "completed":  # the record of a video is gone: a new one takes consent
        retried = desk.told(desk("retry", desk.name, "--pay-again", "--json"))
        told = f"{told}, with `--pay-again` {states(retried)}"
    made = sum(count for prompt, count in server.made().items() if prompt.startswith(desk.name))
    text = (
        f"cancelled {ended - began:.1f} s after the command was entered, which took {done.seconds:.1f} s with its "
        f"DELETEs ({deletes}); `run` ended with {code}; `retry`: {told}, {made} begun in all"
    )
    return Outcome(done.code == 0 and code == 4 and retried["status"] == "completed", text)


def _deletes(desk: Desk) -> str:
    lines = [line for line in desk("history", desk.name).output.splitlines() if "DELETE" in line]
    return " / ".join(sorted({line.partition("DELETE")[2].strip() for line in lines})) or "no DELETE was sent"


def killed(server: SteeredServer, desk: Desk) -> Outcome:
    server.hold()
    running = desk.begin(*desk.words(*(desk.video(f"film {number}") for number in range(4))))
    desk.wait_until_made(3)
    desk.kill(running)
    server.release()
    resumed = desk.told(desk("resume", desk.name, "--json"))
    return Outcome(resumed["status"] == "completed", f"`resume`: {states(resumed)}")


def lost_answer(server: SteeredServer, desk: Desk) -> Outcome:
    with Tap(server.program.url) as tap:
        there = {"OPENAI_BASE_URL": tap.base_url}
        tap.lose(1)
        batch = desk.run(desk.video("one"), desk.video("two"), **there)
        told = f"{tap.lost} of 2 answers lost: {states(batch)}"
        if batch["status"] == "completed":
            return Outcome(True, f"{told}; the video was found in the listing")
        retried = desk("retry", desk.name, **there)
    (lost,) = (job for job in batch["jobs"] if job["error"])
    honest = lost["error"]["code"] == "submission_unknown" and retried.code != 0
    return Outcome(None if honest else False, f"{told}; {error(lost)}; a blanket `retry` sends nothing")


def lost_twins(server: SteeredServer, desk: Desk) -> Outcome:
    twins = [desk.video("twins"), desk.video("twins")]
    desk.again[twins[0]["prompt"]] = 1
    with Tap(server.program.url) as tap:
        tap.lose(1)
        began = time.monotonic()
        batch = desk.run(*twins, OPENAI_BASE_URL=tap.base_url)
    told = f"{tap.lost} of 2 answers lost: {states(batch)} in {time.monotonic() - began:.0f} s"
    return Outcome(batch["status"] == "completed" or None, told)


def json_format(_: Server, desk: Desk) -> Outcome:
    return _one(desk, desk.video("by JSON"), **JSON)


def _one(desk: Desk, video: dict[str, Any], **settings: str) -> Outcome:
    batch = desk.run(video, **settings)
    (job,) = batch["jobs"]
    return Outcome(job["status"] == "completed", error(job) if job["error"] else job["status"])


def picture_form(server: SteeredServer, desk: Desk) -> Outcome:
    server.with_pictures()
    return _picture(server, desk)


def picture_json(server: SteeredServer, desk: Desk) -> Outcome:
    server.with_pictures()
    return _picture(server, desk, **JSON)


def _picture(server: SteeredServer, desk: Desk, **settings: str) -> Outcome:
    (desk.folder / "picture.png").write_bytes(png())
    outcome = _one(desk, desk.video("of a picture", input_reference="picture.png"), **settings)
    asked = [asked for asked in server.asked() if asked["prompt"].startswith(f"{desk.name}:")]
    pictures = [name for each in asked for name in _pictures(each)]
    arrived = f"the picture arrived as `{pictures[0]}`" if pictures else "no picture arrived"
    return Outcome(outcome.works and bool(pictures), f"{outcome.told}; {arrived}")


def _pictures(asked: dict[str, Any]) -> list[str]:
    """The fields in which pictures arrived."""
    return [name for name, value in asked.items() if value and ("reference" in name or name == "image")]


def parameters(server: SteeredServer, desk: Desk) -> Outcome:
    return _parameters(server, desk)


def parameters_json(server: SteeredServer, desk: Desk) -> Outcome:
    return _parameters(server, desk, **JSON)


def _parameters(server: SteeredServer, desk: Desk, **settings: str) -> Outcome:
    if not known("params"):
        return Outcome(None, "this version has no `params`")
    wanted = {"negative_prompt": "blurred", "fps": 12, "num_inference_steps": 20, "guidance_scale": 4.5}
    outcome = _one(desk, desk.video("with parameters", seed=7, params=wanted), **settings)
    asked = [asked for asked in server.asked() if asked["prompt"].startswith(f"{desk.name}:")]
    arrived = {name: asked[0].get(name) for name in ("seed", *wanted)} if asked else {}
    right = _as_numbers(arrived) == {"seed": 7, **wanted}
    return Outcome(outcome.works and right, f"{outcome.told}; arrived: {arrived}")


def _as_numbers(fields: dict[str, Any]) -> dict[str, Any]:
    """A form's texts as what they say."""
    texts = {name: value for name, value in fields.items() if isinstance(value, str) and value[0].isdigit()}
    return fields | {name: float(value) for name, value in texts.items()}


def further_file(server: SteeredServer, desk: Desk) -> Outcome:
    if not known("files"):
        return Outcome(None, "this version has no `files`")
    server.with_pictures()
    (desk.folder / "picture.png").write_bytes(png())
    pictures = {"input_reference": "picture.png", "files": {"last_frame": "picture.png"}}
    outcome = _one(desk, desk.video("with a last frame", **pictures))
    asked = [asked for asked in server.asked() if asked["prompt"].startswith(f"{desk.name}:")]
    frame = asked[0].get("last_frame") if asked else None
    what = "as a file" if isinstance(frame, dict) else f"as {frame!r}" if frame else "not at all, without a word"
    return Outcome(isinstance(frame, dict), f"{outcome.told}; `last_frame` arrived {what}")


def wrong_key(server: Server, desk: Desk) -> Outcome:
    return _not_let_in(server, desk, "sk-wrong")


def no_key(server: Server, desk: Desk) -> Outcome:
    return _not_let_in(server, desk, "")


def _not_let_in(server: Server, desk: Desk, key: str) -> Outcome:
    if "OPENAI_API_KEY" not in desk.environment:
        return Outcome(None, "it checks no key")
    desk.environment["OPENAI_API_KEY"] = key
    (job,) = desk.run(desk.video("one"))["jobs"]
    told = f"{error(job)}; `doctor`: {doctor(server, desk).told}"
    return Outcome(job["error"] is not None and job["error"]["code"] == "authentication", told)


def unknown_model(_: Server, desk: Desk) -> Outcome:
    batch = desk.run(desk.video("with another model", model="nobody-has-this"))
    (job,) = batch["jobs"]
    if job["status"] == "completed":
        return Outcome(None, "any model is taken")
    return Outcome(job["error"]["code"] == "invalid_request", error(job))


def suspended(server: SteeredServer, desk: Desk) -> Outcome:
    server.program.send(signal.SIGSTOP)
    awake = threading.Timer(14, server.program.send, [signal.SIGCONT])
    awake.start()
    batch = desk.run(desk.video("one"), SORA_SUBMIT_TIMEOUT="4s", SORA_LISTING="whole")
    awake.join()
    with suppress(TimeoutError):  # a server may drop what its client has left
        until(lambda: check_paid(server, desk), 5)
    (job,) = batch["jobs"]
    return Outcome(job["status"] == "completed" or None, error(job) if job["error"] else job["status"])


def ninety(server: SteeredServer, desk: Desk) -> Outcome:
    if not known("matrix"):
        return Outcome(None, "this version has no `matrix`")
    (desk.folder / "picture.png").write_bytes(png())
    file = desk.folder / f"{desk.name}.yaml"
    file.write_text(_NINETY.replace("NAME", desk.name))
    server.with_pictures()
    desk.again.update({f"{desk.name}: a {product}, {style}": 2 for product in _PRODUCTS for style in _STYLES})
    batch = desk.told(desk("run", str(file), "--json", "--concurrency", "20"))
    asked = [asked for asked in server.asked() if asked["prompt"].startswith(f"{desk.name}:")]
    right = [a for a in asked if a.get("negative_prompt") == "blurred, text" and float(a.get("fps") or 0) == 24]
    pictures = [each for each in right if _pictures(each)]
    arrived = Counter((each["prompt"], str(each.get("seed"))) for each in asked)
    recorded = Counter((job["prompt"], str(job["seed"])) for job in batch["jobs"])
    told = (
        f"{states(batch)}; {len(right)} of {len(asked)} arrived with negative prompt and 24 fps, {len(pictures)} of them "
        f"with a picture; each prompt and seed arrived once as its job records it: {arrived == recorded}"
    )
    works = batch["progress"]["completed"] == len(pictures) == len(set(arrived)) == 90 and arrived == recorded
    return Outcome(works, told)


_PRODUCTS = ("lamp", "chair", "table", "clock", "vase", "rug")
_STYLES = ("in oil", "in pencil", "in clay", "in neon", "on film")
_NINETY = """\
id: NAME
matrix:
  product: [lamp, chair, table, clock, vase, rug]
  style: [in oil, in pencil, in clay, in neon, on film]
defaults:
  input_reference: picture.png
  params: {negative_prompt: "blurred, text", fps: 24}
videos:
  - prompt: "NAME: a {product}, {style}"
    takes: 3
    seed: 100
"""


def large(server: SteeredServer, desk: Desk) -> Outcome:
    server.film(LARGE)
    began = time.monotonic()
    batch = desk.run(desk.video("a large one"), desk.video("another large one"))
    seconds = time.monotonic() - began
    server.film(20_000)
    sizes = [Path(job["video"]["path"]).stat().st_size for job in batch["jobs"] if job["video"]]
    return Outcome(sizes == [LARGE, LARGE], f"{states(batch)}, {sizes} bytes, in {seconds:.0f} s")


def restarted(server: SteeredServer, desk: Desk) -> Outcome:
    server.hold()
    running = desk.begin(*desk.words(desk.video("one"), desk.video("two")), SORA_VIDEO_TIMEOUT="300s")
    desk.wait_until_made(2)
    server.restart()
    server.release()
    began = time.monotonic()
    batch = desk.told(desk.end(running))
    told = f"{states(batch)}, {time.monotonic() - began:.0f} s after the restart"
    honest = all(job["status"] == "completed" or job["error"]["code"] == "not_found" for job in batch["jobs"])
    return Outcome(honest, told + "".join(f"; {error(job)}" for job in batch["jobs"][:1] if job["error"]))


def states(batch: dict[str, Any]) -> str:
    counts = Counter(job["status"] for job in batch["jobs"])
    return ", ".join(f"{count} {status}" for status, count in counts.most_common())


def error(job: dict[str, Any]) -> str:
    return f"`{job['error']['code']}`: {job['error']['message']}" if job["error"] else "no error"


def png() -> bytes:
    side = 64
    rows = (b"\0" + bytes([200, 40, 40]) * side) * side
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    pieces = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    chunks = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in pieces
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


TRIALS: dict[str, Trial] = {
    "doctor": doctor,
    "a batch of 10": ten,
    "a batch of 100, 20 at once": hundred,
    "partial failure, and retry": partial,
    "cancel, and retry": cancel,
    "resume after kill -9": killed,
    "a lost answer": lost_answer,
    "a lost answer, and the same prompt twice": lost_twins,
    "JSON": json_format,
    "a picture by multipart": picture_form,
    "a picture by JSON": picture_json,
    "a further file, `last_frame`": further_file,
    "seed and params by multipart": parameters,
    "seed and params by JSON": parameters_json,
    "90 clips of one file of 14 lines": ninety,
    "a wrong key": wrong_key,
    "no key": no_key,
    "an unknown model": unknown_model,
    "two downloads of 100 MB": large,
    "the server hangs for 14 s while a POST is on its way, `SORA_LISTING=whole`": suspended,
    "the server killed and started again": restarted,
}
