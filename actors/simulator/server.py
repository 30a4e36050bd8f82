"""The simulator: an HTTP server, its routes and its handlers.

Owns the clock and the life of the server. What a job is and which there are, is in jobs.py; how it is worded, in
profiles.py; what holds for every request, in gate.py.

A create is not idempotent, as on every server of this protocol: an Idempotency-Key is not looked at.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from aiohttp import web

from actors.simulator.fields import Create
from actors.simulator.films import TYPES, Contents, require_drawing
from actors.simulator.gate import (
    REPLICA,
    RateLimit,
    Refusal,
    answer_refusals,
    balance,
    check_key,
    invalid,
    mark,
    not_found,
    rate_limited,
)
from actors.simulator.jobs import Job, Ledger, State, blocked, draw, state_of
from actors.simulator.options import SimulatorOptions
from actors.simulator.profiles import parse_prompt, profile_of

if TYPE_CHECKING:
    from collections.abc import Iterator

LARGEST_REQUEST = 64 * 2**20
"""Bytes: a reference picture and some room."""
logger = logging.getLogger(__name__)


class Simulator:
    """A stand-in for the Videos API."""

    def __init__(self, options: SimulatorOptions = SimulatorOptions()) -> None:  # noqa: B008 - it is frozen
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
        middlewares = [answer_refusals(self._profile), check_key(self._options.api_key)]
        if self._options.replicas > 1:
            middlewares.insert(0, balance(self._options.replicas, self._seed))
        application = web.Application(client_max_size=LARGEST_REQUEST, middlewares=middlewares)
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
        prompt = parse_prompt(await self._profile.read_fields(request))
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
            seed=self._seed,
            prompt=create.prompt,
            attempt=self._ledger.next_attempt(create.prompt),
            latency=self._options.latency,
            failure_rate=self._options.failure_rate,
        )
        if any(word.search(create.prompt) for word in self._moderated):
            failure = blocked()
        return Job(
            number=self._ledger.next_number(),
            id=self._profile.new_id(),
            prompt=create.prompt,
            model=create.model,
            seconds=create.seconds,
            size=create.size,
            accepted_at=now,
            latency=latency,
            failure=failure,
            remixed_from=remixed_from,
            told=create.told,
            replica=REPLICA.get(),
        )

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


@contextmanager
def simulator_in_thread(
    options: SimulatorOptions = SimulatorOptions(),  # noqa: B008 - it is frozen
) -> Iterator[tuple[Simulator, str]]:
    """Run a simulator on a free port for as long as the context lasts; gives it and its base URL."""
    simulator = Simulator(options)
    with _loop_in_thread() as loop:
        base_url = asyncio.run_coroutine_threadsafe(simulator.start(), loop).result()
        try:
            yield simulator, base_url
        finally:
            asyncio.run_coroutine_threadsafe(simulator.stop(), loop).result()


@contextmanager
def _loop_in_thread() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="simulator")
    thread.start()
    try:
        yield loop
    finally:
        asyncio.run_coroutine_threadsafe(loop.shutdown_default_executor(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
