"""The door for tests: reads the ledger, sets faults, and ends, holds or forgets videos. All of it JSON.

Nothing here needs a test to sleep: `wait` and `ledger?after=` answer when there is something to tell.
"""

import asyncio
import os
import pickle
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

from aiohttp import web

from tests.provider.connections import Gate
from tests.provider.faults import ROUTES, Faults, Rule
from tests.provider.records import TERMINAL, Ledger, Video
from tests.provider.studio import Studio

AT_MOST = "_at_most"


class Changes:
    """Wakes everybody who waits for something to change."""

    def __init__(self) -> None:
        self.revision = 0
        self._waiting: set[asyncio.Future[None]] = set()

    def happened(self) -> None:
        self.revision += 1
        waiting, self._waiting = self._waiting, set()
        for future in waiting:
            if not future.done():
                future.set_result(None)

    async def until(self, holds: Callable[[], bool], seconds: float) -> bool:
        """Wait until it holds; return whether it does in the end."""
        deadline = asyncio.get_running_loop().time() + seconds
        while not holds():
            left = deadline - asyncio.get_running_loop().time()
            if left <= 0:
                return False
            change = asyncio.get_running_loop().create_future()
            self._waiting.add(change)
            await asyncio.wait((change,), timeout=left)
        return True


class Admin:
    def __init__(self, studio: Studio, faults: Faults, gate: Gate, changes: Changes, state: Path | None) -> None:
        self._studio = studio
        self._faults = faults
        self._gate = gate
        self._changes = changes
        self._state = state

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/_/ledger", self.ledger),
            web.get("/_/summary", self.summary),
            web.get("/_/wait", self.wait),
            web.post("/_/options", self.options),
            web.get("/_/faults", self.faults),
            web.post("/_/faults", self.add_faults),
            web.delete("/_/faults", self.clear_faults),
            web.post("/_/finish", self.finish),
            web.post("/_/hold", self.hold),
            web.post("/_/release", self.release),
            web.post("/_/forget", self.forget),
            web.post("/_/reset", self.reset),
            web.post("/_/die", self.die),
        ]

    async def ledger(self, request: web.Request) -> web.Response:
        """Everything; with `after`, not before the revision is past it (or `timeout` seconds have passed)."""
        after = int(request.query.get("after", "-1"))
        await self._changes.until(lambda: self._changes.revision > after, _timeout(request))
        return web.json_response(self._studio.ledger.as_json() | self._standing())

    async def summary(self, _: web.Request) -> web.Response:
        return web.json_response(self._studio.ledger.summary() | self._standing())

    async def wait(self, request: web.Request) -> web.Response:
        """Wait until each count is at least (`posts=3`), or at most (`in_flight_at_most=0`), so much."""
        wanted = {name: int(value) for name, value in request.query.items() if name != "timeout"}
        unknown = {name.removesuffix(AT_MOST) for name in wanted} - self._counts().keys()
        if unknown:
            return _refused(f"unknown counts {sorted(unknown)}; known: {sorted(self._counts())}")
        came = await self._changes.until(lambda: _reached(wanted, self._counts()), _timeout(request))
        return web.json_response({"came": came, "counts": self._counts()})

    async def options(self, request: web.Request) -> web.Response:
        try:
            self._studio.options = self._studio.options.changed(await request.json())
        except (TypeError, ValueError) as error:
            return _refused(str(error))
        return web.json_response({})

    async def faults(self, _: web.Request) -> web.Response:
        return web.json_response({"faults": [rule.as_json() for rule in self._faults.rules]})

    async def add_faults(self, request: web.Request) -> web.Response:
        """Add a rule, or a list of them."""
        document = await request.json()
        try:
            rules = [Rule.parse(rule) for rule in (document if isinstance(document, list) else [document])]
        except (TypeError, ValueError) as error:
            return _refused(str(error))
        self._faults.rules.extend(rules)
        return web.json_response({})

    async def clear_faults(self, _: web.Request) -> web.Response:
        self._faults.rules.clear()
        return web.json_response({})

    async def finish(self, request: web.Request) -> web.Response:
        """End running videos now: those named in `ids`, whose prompt has `match` in it, or all.

        `status` and `error` say how; neither, and they end as they would have.
        """
        how = await _body(request)
        status, error = how.get("status"), how.get("error")
        if status is not None and status not in TERMINAL:
            return _refused(f"a video ends as one of {sorted(TERMINAL)}, not {status!r}")
        ended = [video for video in self._studio.running() if _is_named(video, how)]
        for video in ended:
            if status is None and error is None:
                self._studio.finish(video)
            else:
                self._studio.end(video, status or "failed", error)
        return web.json_response({"ended": [video.id for video in ended]})

    async def hold(self, _: web.Request) -> web.Response:
        self._studio.hold()
        return web.json_response({})

    async def release(self, request: web.Request) -> web.Response:
        """Let go of held `videos`, of hanging `requests`, or (no `what`) of both."""
        what = (await _body(request)).get("what")
        if what in {None, "videos"}:
            self._studio.release()
        if what in {None, "requests"}:
            self._gate.open()
        return web.json_response({})

    async def forget(self, _: web.Request) -> web.Response:
        self._studio.forget()
        return web.json_response({})

    async def reset(self, _: web.Request) -> web.Response:
        """Be as at the start: no records, no faults, nothing held; the options stay."""
        self._studio.forget()
        self._studio.release()
        self._gate.open()
        self._faults.clear()
        self._studio.ledger = Ledger()
        self._changes.happened()
        return web.json_response({})

    async def die(self, _: web.Request) -> web.Response:
        """Keep the state for the next server on this port, then end as kill -9 does.

        One step of the loop, so that nothing is accepted between the two.
        """
        if self._state is None:
            return _refused("no --state file to keep the ledger in")
        studio = self._studio
        self._state.write_bytes(pickle.dumps((studio.ledger, studio.options, studio.held, self._faults)))
        os.kill(os.getpid(), signal.SIGKILL)
        return web.Response()

    def _counts(self) -> dict[str, int]:
        ledger = self._studio.ledger
        requests = {f"requests_{route}": ledger.requests[route] for route in ROUTES}
        here = {"hanging": len(self._gate), "faults_fired": self._faults.fired.total()}
        return ledger.counts() | requests | here

    def _standing(self) -> dict[str, Any]:
        return {
            "faults_fired": self._faults.fired.total(),
            "hanging": len(self._gate),
            "held": self._studio.held,
            "revision": self._changes.revision,
            "faults": [rule.as_json() for rule in self._faults.rules],
        }


def restored(state: bytes, studio: Studio, faults: Faults) -> None:
    """Take over what a killed server kept."""
    kept = cast("tuple[Ledger, Any, bool, Faults]", pickle.loads(state))  # noqa: S301 - written by ourselves
    studio.ledger, studio.options, studio.held = kept[:3]
    faults.rules, faults.fired = kept[3].rules, kept[3].fired


def _reached(wanted: Mapping[str, int], counts: Mapping[str, int]) -> bool:
    return all(
        counts[name.removesuffix(AT_MOST)] <= value if name.endswith(AT_MOST) else counts[name] >= value
        for name, value in wanted.items()
    )


def _is_named(video: Video, how: Mapping[str, Any]) -> bool:
    return ("ids" not in how or video.id in how["ids"]) and how.get("match", "") in video.prompt


def _timeout(request: web.Request) -> float:
    return float(request.query.get("timeout", "10"))


async def _body(request: web.Request) -> dict[str, Any]:
    return cast("dict[str, Any]", await request.json()) if request.can_read_body else {}


def _refused(message: str) -> web.Response:
    return web.json_response({"error": message}, status=400)
