"""What is tried with each server besides the making of videos: money, files, and the HTTP API in front of it."""

import json
import re
import signal
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any, Self
from urllib.error import HTTPError
from urllib.request import Request

from tests.integration.support import until
from tests.servers.port import Port
from tests.servers.real.desk import Desk
from tests.servers.real.litellm import LiteLLMBefore, Simulator
from tests.servers.real.program import OPENER
from tests.servers.real.server import Server, SteeredServer
from tests.servers.real.trials import Outcome, Trial, check_paid, states

_PRICES = {"*": {"currency": "USD", "source": "the trial", "as_of": "2026-11-30", "output_cost_per_second": 0.1}}
_PATIENCE = 60.0


def money(_: SteeredServer, desk: Desk) -> Outcome:
    prices = desk.folder / "prices.json"
    prices.write_text(json.dumps(_PRICES))
    desk.environment["SORA_PRICES"] = str(prices)
    films = [desk.video(f"film {number}", duration=4) for number in range(3)]
    words = desk.words(*films)
    quote = desk("quote", words[1], "--json").json()
    batch = desk.told(desk(*words, "--budget", "0.85 USD"))
    stopped = _codes(batch)
    spent = _spent(desk)
    retried = desk.told(desk("retry", desk.name, "--budget", "2 USD", "--json"))
    told = (
        f"`quote`: {_amounts(quote)}; with `--budget '0.85 USD'`: {stopped}, `costs`: {spent}; "
        f"`retry --budget '2 USD'`: {states(retried)}, `costs`: {_spent(desk)}"
    )
    works = stopped == "2 completed, 1 budget_exceeded" and retried["status"] == "completed"
    return Outcome(works and spent == "0.80 USD" and _spent(desk) == "1.20 USD", told)


def _codes(batch: dict[str, Any]) -> str:
    counts = Counter(job["error"]["code"] if job["error"] else job["status"] for job in batch["jobs"])
    return ", ".join(f"{count} {code}" for code, count in counts.most_common())


def _amounts(document: dict[str, Any]) -> str:
    return ", ".join(f"{each['estimated_micros'] / 1e6:.2f} {each['currency']}" for each in document["cost"])


def _spent(desk: Desk) -> str:
    """What a batch has used, charged or assumed."""
    costs = desk("status", desk.name, "--json").json()["cost"]
    return ", ".join(
        f"{(each['charged_micros'] + each['assumed_micros']) / 1e6:.2f} {each['currency']}" for each in costs
    )


def files(server: SteeredServer, desk: Desk) -> Outcome:
    batch = desk.run(desk.video("one"), desk.video("two"))
    fetched = desk("fetch", desk.name, "--output", "fetched", "--json")
    lost = Path(batch["jobs"][0]["video"]["path"])
    bytes_before = lost.read_bytes()
    lost.unlink()
    missing = desk("retry", desk.name, "--missing", "--json")
    again = lost.exists() and lost.read_bytes() == bytes_before
    told = (
        f"`fetch`: {len(list((desk.folder / 'fetched').iterdir()))} files; one removed, `retry --missing`: "
        f"{'the same bytes are there again' if again else missing.errors.strip()}"
    )
    check_paid(server, desk)
    return Outcome(fetched.code == 0 and missing.code == 0 and again, told)


def reported(_: SteeredServer, desk: Desk) -> Outcome:
    (job,) = desk.run(desk.video("asked exactly", duration=12, size="1280x720", seed=7))["jobs"]
    warned = "; ".join(f"`{each['code']}` {each['message']}" for each in job["warnings"]) or "none"
    given = {name: value for name, value in (job["reported"] or {}).items() if value is not None}
    told = f"{job['status']}; asked 12 s, 1280x720, seed 7; reported: {given or 'nothing'}; warnings: {warned}"
    return Outcome(job["status"] == "completed", told)


class _Web:
    """`serve --web` of a desk."""

    def __init__(self, desk: Desk) -> None:
        self._port = Port()
        self.url = f"http://127.0.0.1:{self._port.number}"
        self._process = desk.begin("serve", "--web", f"127.0.0.1:{self._port.number}")

    def __enter__(self) -> Self:
        until(self._ready, _PATIENCE)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.communicate(timeout=_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
        self._port.release()

    def _ready(self) -> bool:
        try:
            return self.ask("GET", "/readyz")[0] == 200
        except OSError:
            return False

    def ask(self, method: str, path: str, document: Any = None, **headers: str) -> tuple[int, bytes]:
        data = None if document is None else json.dumps(document).encode()
        request = Request(self.url + path, data, {"Content-Type": "application/json", **headers}, method=method)
        try:
            with OPENER.open(request, timeout=_PATIENCE) as answer:
                return answer.status, answer.read()
        except HTTPError as refusal:
            with refusal:
                return refusal.code, refusal.read()

    def batch(self, name: str) -> dict[str, Any]:
        return dict(json.loads(self.ask("GET", f"/api/v1/batches/{name}")[1]))


def http(server: SteeredServer, desk: Desk) -> Outcome:
    path = f"/api/v1/batches/{desk.name}"
    with _Web(desk) as web:
        created = web.ask(
            "POST", "/api/v1/batches", {"id": desk.name, "videos": [desk.video("one"), desk.video("two")]}
        )
        until(lambda: web.batch(desk.name)["status"] == "completed", _PATIENCE)
        part = web.ask("GET", f"{path}/jobs/1/video", Range="bytes=0-99")
        lost = Path(web.batch(desk.name)["jobs"][0]["video"]["path"])
        lost.unlink()
        missing = web.ask("POST", f"{path}/retry", {"missing": True})
        until(lost.exists, _PATIENCE)
        server.hold()
        held = {"id": f"{desk.name}-held", "videos": [desk.video("held")]}
        web.ask("POST", "/api/v1/batches", held)
        until(lambda: web.batch(held["id"])["jobs"][0]["remote_id"], _PATIENCE)
        cancelled = web.ask("POST", f"/api/v1/batches/{held['id']}/cancel")
        server.release()
        events = json.loads(web.ask("GET", f"{path}/events")[1])["data"]
    said = [created[0], part[0], len(part[1]), missing[0], cancelled[0]]
    check_paid(server, desk)
    told = (
        f"`POST batches`: {said[0]}; completed, with {len(events)} events; a part of a file: {said[1]}, {said[2]} bytes; "
        f"a missing file by `POST retry`: {said[3]}, and it is there; `POST cancel`: {said[4]}"
    )
    return Outcome(said == [201, 206, 100, 202, 200], told)


def told_prices(_: Server, desk: Desk) -> Outcome:
    info = {"mode": "video_generation", "output_cost_per_second": 0.05}
    with LiteLLMBefore(Simulator(), "openai", info) as server:
        desk.environment |= server.user
        prices = desk.folder / "told.json"
        prices.write_text(json.dumps(_PRICES))
        batch = desk.run(desk.video("one", duration=4), desk.video("two", duration=8), SORA_PRICES=str(prices))
        check_paid(server, desk)
    status = desk("status", desk.name, "--json", SORA_PRICES=str(prices)).json()
    (cost,) = status["cost"]
    history = re.findall(r"x-litellm-response-cost[^,;\n]*", desk("history", desk.name).output)
    told = (
        f"its `model_info` says 0.05 USD a second, ours 0.10: {states(batch)}; charged "
        f"{cost['charged_micros'] / 1e6:.2f} USD, assumed {cost['assumed_micros'] / 1e6:.2f} USD; "
        f"`history`: {'; '.join(history) or 'no price'}"
    )
    return Outcome(cost["charged_micros"] == 600_000, told)


FEATURES: dict[str, Trial] = {
    "`quote`, a budget in money, `costs`": money,
    "`fetch`, and `retry --missing`": files,
    "what the server reports, and warnings": reported,
    "the HTTP API of `serve --web`": http,
}
