"""The simulator: how it is to behave, and its HTTP server with the routes and handlers.

Owns the clock and the life of the server. What a job is and which there are, is in jobs.py; how it is worded, in
profiles.py; what holds for every request, in gate.py.

A create is not idempotent, as on every server of this protocol: an Idempotency-Key is not looked at.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiohttp import web

from actors.simulator.fields import Create, read_prompt
from actors.simulator.films import TYPES, Contents, require_drawing
from actors.simulator.gate import REPLICA, RateLimit, Refusal, invalid, mark, middlewares, not_found, rate_limited
from actors.simulator.jobs import Job, Ledger, State, blocked, draw, state_of
from actors.simulator.profiles import PROFILES, profile_of

if TYPE_CHECKING:
    from pathlib import Path

LARGEST_REQUEST = 64 * 2**20
"""Bytes: a reference picture and some room."""
logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class SimulatorOptions:
    """How a simulator treats the requested videos.

    Raises:
        ValueError: a value that no simulator can have.
    """

    latency: tuple[float, float] = (2.0, 5.0)
    """Seconds from acceptance to the end, drawn evenly between the two."""
    failure_rate: float = 0.0
    """The share of generations that fail, 0 to 1."""
    moderation: tuple[str, ...] = ()
    """A prompt with one of these words in it, in any case, fails with `moderation_blocked`."""
    rate_limit: float | None = None
    """Creates per second; one second's worth may come at once, above that 429."""
    api_key: str | None = None
    """Demanded as a Bearer token."""
    content_bytes: int | None = None
    """Draw nothing: contents are of exactly this size and begin as their kind does (MP4: an `ftyp` box)."""
    seed: int | None = None
    """The same seed and prompts give the same latencies and failures, in whatever order they come."""
    profile: str = "openai"
    """Whose answers to give: a name in PROFILES."""
    strict: bool = False
    """Accept only the seconds, sizes, models and fields of the hosted API; only with the profile `openai`."""
    model: str | None = None
    """The only model served; by default `sora-2`, and with the profile `openai` any requested one."""
    replicas: int = 1
    """The number of stores behind one port, each with its own videos: every request goes to a random one."""
    state_file: Path | None = None
    """JSON lines of what was accepted and deleted, so that a restarted simulator continues."""

    def __post_init__(self) -> None:
        """Check the values against each other."""
        low, high = self.latency
        for holds, otherwise in (
            (0 <= low <= high, f"latency must go from low to high, both 0 or more (got {self.latency!r})"),
            (0 <= self.failure_rate <= 1, f"failure_rate must be from 0 to 1 (got {self.failure_rate!r})"),
            (self.rate_limit is None or self.rate_limit > 0, f"rate_limit must be above 0 (got {self.rate_limit!r})"),
            (self.content_bytes is None or self.content_bytes >= 0, "content_bytes must be 0 or more"),
            (self.profile in PROFILES, f"profile must be one of {', '.join(PROFILES)} (got {self.profile!r})"),
            (
                not self.strict or self.profile == "openai",
                f"strict works with the profile openai only; {self.profile} always validates as its server does",
            ),
            (self.replicas >= 1, f"replicas must be 1 or more (got {self.replicas!r})"),
        ):
            if not holds:
                raise ValueError(otherwise)


class Simulator:
    """A stand-in for the Videos API."""

    def __init__(self, options: SimulatorOptions = SimulatorOptions()) -> None:
        """Prepare a simulator; nothing is opened or read before start()."""
        self._options = options
        self._profile = profile_of(options.profile, model=options.model, strict=options.strict)
        self._seed = secrets.randbits(64) if options.seed is None else options.seed
        self._rate = RateLimit(options.rate_limit) if options.rate_limit else None
        self._moderated = [re.compile(rf"(?<!\w){re.escape(w)}(?!\w)", re.IGNORECASE) for w in options.moderation]
        self._ledger = Ledger(options.replicas)
        self._contents: Contents | None = None
        self._runner: web.AppRunner | None = None

    @property
    def creates(self) -> int:
        """Creates and remixes accepted since start(), without what a state file brought back."""
        return self._ledger.creates

    @property
    def max_in_flight(self) -> int:
        """The most jobs that were unfinished at one moment."""
        return self._ledger.max_in_flight

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> str:
        """Serve, and give the base URL, `http://127.0.0.1:PORT/v1`; port 0 is any free port.

        Raises:
            DrawingUnavailableError: PyAV is not installed, and no `content_bytes` are asked for.
            OSError: the port is taken, or the state file can't be used.
        """
        if self._options.content_bytes is None:
            require_drawing()
        # As on the real servers, jobs end with the process, unless a file has them.
        self._ledger = Ledger(self._options.replicas)
        if self._options.state_file is not None:
            self._ledger.open(self._options.state_file)
        self._contents = Contents(self._options.content_bytes)
        self._runner = web.AppRunner(self._application(), access_log=None, shutdown_timeout=1)
        try:
            await self._runner.setup()
            await web.TCPSite(self._runner, host, port).start()
        except BaseException:
            await self.stop()
            raise
        bound = self._runner.addresses[0]
        return f"http://{f'[{bound[0]}]' if ':' in bound[0] else bound[0]}:{bound[1]}/v1"

    async def stop(self) -> None:
        """Stop serving, and remove what was drawn. Idempotent."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
        if self._contents is not None:
            await asyncio.to_thread(self._contents.close)
            self._contents = None
        self._ledger.close()

    def _application(self) -> web.Application:
        each = middlewares(self._profile, self._options.api_key, self._options.replicas, self._seed)
        application = web.Application(client_max_size=LARGEST_REQUEST, middlewares=each)
        application.on_response_prepare.append(mark)
        application.add_routes(
            [
                web.get("/v1/models", self._models),
                web.post("/v1/videos", self._create),
                web.get("/v1/videos", self._list),
                web.get("/v1/videos/{id}", self._retrieve),
                web.delete("/v1/videos/{id}", self._delete),
                web.get("/v1/videos/{id}/content", self._content),
            ]
        )
        if self._profile.remixes:
            application.add_routes([web.post("/v1/videos/{id}/remix", self._remix)])
        return application

    async def _models(self, _: web.Request) -> web.Response:
        told = {"object": "model", "created": 0, "owned_by": "sora-batch simulator"}
        data = [{"id": name} | told for name in self._profile.models]
        return web.json_response({"object": "list", "data": data})

    async def _create(self, request: web.Request) -> web.Response:
        return self._accept(await self._profile.read_create(request))

    async def _remix(self, request: web.Request) -> web.Response:
        source, state = self._find(request)
        prompt = read_prompt(await self._profile.read_fields(request))
        if state.status != "completed":
            message = f"Only completed videos can be remixed; this one is {state.status}."
            raise Refusal(400, message, code="video_not_completed")
        create = Create(prompt=prompt, model=source.model, seconds=source.seconds, size=source.size)
        return self._accept(create, remixed_from=source.id)

    def _accept(self, create: Create, remixed_from: str | None = None) -> web.Response:
        wait = self._rate.take(time.monotonic()) if self._rate else 0.0
        if wait:
            raise rate_limited(wait)
        now = time.time()
        job = self._draw_job(create, now, remixed_from)
        self._ledger.accept(job, now)
        logger.info("accepted a video", extra={"action": "simulator_accept", "video_id": job.id})
        return web.json_response(self._profile.video(job, state_of(job, now)))

    def _draw_job(self, create: Create, now: float, remixed_from: str | None) -> Job:
        latency, failure = draw(
            seed=self._seed, prompt=create.prompt, attempt=self._ledger.next_attempt(create.prompt),
            latency=self._options.latency, failure_rate=self._options.failure_rate,
        )  # fmt: skip
        if any(word.search(create.prompt) for word in self._moderated):
            failure = blocked()
        return Job(
            **vars(create), number=self._ledger.next_number(), id=self._profile.new_id(), accepted_at=now,
            latency=latency, failure=failure, remixed_from=remixed_from, replica=REPLICA.get(),
        )  # fmt: skip

    def _find(self, request: web.Request) -> tuple[Job, State]:
        job = self._ledger.find(request.match_info["id"], REPLICA.get())
        if job is None:
            raise not_found("Video not found")
        return job, state_of(job, time.time())

    async def _list(self, request: web.Request) -> web.Response:
        page = self._profile.read_page(request.query)
        try:
            jobs, more = self._ledger.page(page, REPLICA.get(), by_second=self._profile.lists_by_second)
        except KeyError:
            if self._profile.unknown_after_is_refused:
                raise invalid("after", f"No video with the id '{page.after}' was found.") from None
            jobs, more = [], False
        now = time.time()
        body = {
            "object": "list",
            "data": [self._profile.video(job, state_of(job, now)) for job in jobs],
            "first_id": jobs[0].id if jobs else None,
            "last_id": jobs[-1].id if jobs else None,
            "has_more": more,
        }
        return web.json_response(body)

    async def _retrieve(self, request: web.Request) -> web.Response:
        job, state = self._find(request)
        status = self._profile.retrieved_status(job, state)
        return web.json_response(self._profile.video(job, state), status=status)

    async def _delete(self, request: web.Request) -> web.Response:
        job, state = self._find(request)
        if not state.ended and self._profile.delete_running == "refuse":
            message = f"Only completed or failed videos can be deleted; this one is {state.status}."
            raise Refusal(409, message, code="video_not_finished")
        self._ledger.delete(job, stop=self._profile.delete_running == "abort")
        if self._contents is not None:
            self._contents.discard(job)
        return web.json_response(self._profile.deleted(job, state))

    async def _content(self, request: web.Request) -> web.StreamResponse:
        job, state = self._find(request)
        variant = self._profile.content(state, request.query)
        if self._contents is None:
            raise not_found("Video not found")  # it is being stopped
        path = await self._contents.file(job, variant)
        return web.FileResponse(path, headers={"Content-Type": TYPES[variant]})
