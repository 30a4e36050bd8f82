"""What is tried with one server only."""

import urllib.error
import urllib.request
from collections import Counter
from typing import Any

from actors.settings import Settings
from tests.servers.real import profiles
from tests.servers.real.desk import Desk
from tests.servers.real.features import told_prices
from tests.servers.real.litellm import LiteLLM, LiteLLMBefore, Simulator
from tests.servers.real.program import OPENER
from tests.servers.real.server import Server, SteeredServer
from tests.servers.real.tap import Tap
from tests.servers.real.trials import Outcome, Trial, check_paid, doctor, error, hundred, states
from tests.servers.real.vllm_omni import VllmOmni

_FAULTS: list[dict[str, Any]] = [
    {"do": "answer", "status": 500},
    {"do": "answer", "status": 500, "accept": True},
    {"do": "answer", "status": 429, "headers": {"Retry-After": "1"}, "times": 1},
    {"do": "lose_response"},
    {"do": "reset", "accept": True},
    {"do": "lose_request"},
]
"""What becomes of creates between the proxy and the server behind it."""


def before_the_simulator(_: Server, desk: Desk) -> Outcome:
    with LiteLLMBefore(Simulator(), "openai") as server:
        return _counted(hundred, server, desk)


def _counted(trial: Any, server: Server, desk: Desk) -> Outcome:
    """Do a trial with another server; count there."""
    desk.environment |= server.user
    outcome: Outcome = trial(server, desk)
    return Outcome(outcome.works, f"{outcome.told}; {check_paid(server, desk)} made, none twice")


def failing_backend(server: LiteLLM, desk: Desk) -> Outcome:
    for number, fault in enumerate(_FAULTS):
        for tens in range(10):
            server.provider.fault(on="create", match=f"film {tens}{number}.", **{"times": -1} | fault)
    videos = [desk.video(f"film {number:02}.") for number in range(100)]
    batch = desk.run(*videos, SORA_VIDEO_TIMEOUT="60s", BATCH_TIMEOUT="30s")
    codes = Counter(job["error"]["code"] if job["error"] else "completed" for job in batch["jobs"])
    posts = server.provider.summary()["posts_per_prompt"]
    most = max(count for prompt, count in posts.items() if prompt.startswith(desk.name))
    told = f"of 100 creates 60 met a fault behind the proxy: {', '.join(f'{n} {code}' for code, n in codes.items())}"
    return Outcome(codes["completed"] >= 40, f"{told}; at most {most} POSTs reached the server for a video")


def own_retries(server: LiteLLM, desk: Desk) -> Outcome:
    counts = {}
    for header in ("none", "x-litellm-num-retries"):
        prompt = f"{desk.name}: {header}"
        desk.again[prompt] = 2
        server.provider.fault(on="create", match=prompt, do="answer", status=500, accept=True, times=-1)
        _post(server, prompt, {header: "0"})
        counts[header] = server.provider.summary()["posts_per_prompt"][prompt]
    told = f"a create that is answered with HTTP 500 is sent {counts['none']} times by the proxy, and with the header "
    return Outcome(counts["x-litellm-num-retries"] == 1, f"{told}that we send {counts['x-litellm-num-retries']} time")


def _post(server: Server, prompt: str, headers: dict[str, str]) -> None:
    key = server.user["OPENAI_API_KEY"]
    body = f"model={server.user['SORA_MODEL']}&prompt={prompt}".encode()
    request = urllib.request.Request(f"{server.base_url}/videos", body, {"Authorization": f"Bearer {key}", **headers})
    try:
        OPENER.open(request, timeout=60).close()
    except urllib.error.HTTPError as refusal:
        refusal.close()


def proxy_killed(server: LiteLLM, desk: Desk) -> Outcome:
    server.provider.fault(on="create", match=desk.name, do="hang", accept=True, times=4)
    running = desk.begin(*desk.words(*(desk.video(f"film {number}") for number in range(8))))
    server.provider.wait(hanging=4, timeout=60)
    server.restart()
    server.provider.release("requests")
    batch = desk.told(desk.end(running))
    codes = Counter(job["error"]["code"] if job["error"] else "completed" for job in batch["jobs"])
    told = f"8 POSTs, 4 of them held behind it when it was killed: {', '.join(f'{n} {c}' for c, n in codes.items())}"
    return Outcome(set(codes) <= {"completed", "submission_unknown"}, told)


def chain(_: Server, desk: Desk) -> Outcome:
    if VllmOmni.environment.version is None:
        return Outcome(None, "vLLM-Omni is not installed")
    with LiteLLMBefore(VllmOmni(), "hosted_vllm") as server:
        desk.environment |= server.user
        batch = desk.run(desk.video("a good one"), desk.video("a bad one [fail]"), SORA_VIDEO_TIMEOUT="60s")
        check_paid(server, desk)
    (bad,) = (job for job in batch["jobs"] if "[fail]" in job["prompt"])
    named = bad["error"] is not None and bad["error"]["code"] == "generation_failed"
    return Outcome(named and batch["status"] == "partial", f"{states(batch)}; {error(bad)}")


def listing_by_header(_: Server, desk: Desk) -> Outcome:
    if "sora_headers" not in Settings.model_fields:
        return Outcome(None, "this version has no SORA_HEADERS")
    with LiteLLMBefore(Simulator("vllm-omni"), "hosted_vllm") as server, Tap(server.program.url) as tap:
        desk.environment |= server.user | {
            "OPENAI_BASE_URL": tap.base_url, "SORA_HEADERS": "custom-llm-provider: hosted_vllm",
        }  # fmt: skip
        said = doctor(server, desk).told
        tap.lose(1)
        batch = desk.run(desk.video("one"), desk.video("two"))
        check_paid(server, desk)
    why = "".join(f"; {error(job)}" for job in batch["jobs"] if job["error"])
    return Outcome(batch["status"] == "completed", f"`doctor`: {said}; 1 of 2 answers lost: {states(batch)}{why}")


def workers(server: SteeredServer, desk: Desk) -> Outcome:
    server.restart("--workers", "2")
    return _not_working(server, desk, "api-server-count")


def dead(server: SteeredServer, desk: Desk) -> Outcome:
    server.restart("--dead")
    return _not_working(server, desk, "Scheduler worker exited")


def _not_working(server: Server, desk: Desk, reason: str) -> Outcome:
    """What is told of a server that answers, and can't make a video. It works if both name the server's reason."""
    said = doctor(server, desk)
    batch = desk.run(desk.video("one"), SORA_SUBMIT_TIMEOUT="5s", BATCH_TIMEOUT="10s")
    (job,) = batch["jobs"]
    named = not said.works and reason in said.told and reason in error(job)
    return Outcome(named, f"`doctor`: {said.told}; {error(job)}")


def warming(server: SteeredServer, desk: Desk) -> Outcome:
    server.restart("--warmup", "30")
    said = doctor(server, desk)
    batch = desk.run(desk.video("one"))
    return Outcome(batch["status"] == "completed", f"for 30 s; `doctor`: {said.told}; then {states(batch)}")


def stuck(server: SteeredServer, desk: Desk) -> Outcome:
    server.restart("--stuck")
    server.hold()
    running = desk.begin(*desk.words(desk.video("one")))
    desk.wait_until_made(1)
    desk("cancel", desk.name)
    desk.end(running)
    owed = desk("audit", "--json").json()["owed_deletes"]
    return Outcome(len(owed) == 1, f"it stays owed, and `audit` says so: {[each['answer'] for each in owed]}")


PROXY_TRIALS: dict[str, Trial] = {
    "a batch of 100, default settings, before the simulator": before_the_simulator,
    "a batch of 100 before a server that fails": failing_backend,  # type: ignore[dict-item]
    "its own retries": own_retries,  # type: ignore[dict-item]
    "killed while POSTs are on their way through it": proxy_killed,  # type: ignore[dict-item]
    "before vLLM-Omni: a video that fails": chain,
    "a lost answer, with a header that makes its listing work": listing_by_header,
    "prices that it tells": told_prices,
}
VLLM_OMNI_TRIALS: dict[str, Trial] = {
    "several API workers": workers,
    "a DELETE while the engine's abort hangs": stuck,
    "the simulator's profile `vllm-omni`": profiles.compared,  # type: ignore[dict-item]
}
SGLANG_TRIALS: dict[str, Trial] = {
    "while it warms up": warming,
    "a dead scheduler": dead,
    "the simulator's profile `sglang`": profiles.compared,  # type: ignore[dict-item]
}
