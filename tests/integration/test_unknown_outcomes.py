"""Replicas, keys, held-back POSTs and reused ids: what nobody can know is never paid for a second time."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, Self

import aiohttp
import pytest
from aiohttp import web

from actors.batch.views import Batch
from actors.service import BatchService
from actors.sora.outcomes import bind_told
from storage.states import SubmissionState
from storage.submissions import Bind
from tests.builders import an_intent
from tests.integration.support import (
    PATIENCE,
    Drivers,
    check_files,
    check_journal,
    check_paid_once,
    job_of,
    numbered,
    until,
    videos,
)
from tests.provider.client import Provider

pytestmark = pytest.mark.integration

Start = Callable[..., BatchService]
TIMEOUT = 1.0


def make(service: BatchService, *prompts: str, **more: Any) -> Batch:
    batch = service.create_batch(videos(*prompts, **more))
    return service.process_batch(batch.id).result(PATIENCE)


def codes(batch: Batch) -> list[str | None]:
    return [job.error.code if job.error else None for job in batch.jobs]


def posts(provider: Provider) -> dict[str, int]:
    return dict(provider.summary()["posts_per_prompt"])


# --- replicas


@pytest.mark.parametrize("choice", ["random", "round_robin", "sticky"])
@pytest.mark.parametrize("replicas", [2, 3])
def test_behind_replicas_nothing_is_paid_for_twice(
    replicas: int, choice: str, provider: Provider, start_service: Start
) -> None:
    """Each lists its own videos only: with our default nothing is proved by it, also in the first batch ever."""
    provider.options(replicas=replicas, replica_choice=choice, latency=0.3)
    for number, fault in enumerate(["lose_response", "lose_request", "reset", "lose_response"], 1):
        provider.fault(on="create", match=f"video {number}", do=fault)
    service = start_service(sora_listing="partial", sora_submit_timeout=TIMEOUT * 1000)
    batch = make(service, *numbered(8), concurrency=4)
    assert set(codes(batch)) <= {None, "submission_unknown"}
    assert posts(provider) == dict.fromkeys(numbered(8), 1)
    check_paid_once(provider)
    check_files(batch, provider)


def test_what_a_listing_can_not_prove_is_told_with_the_setting_that_lets_it(
    provider: Provider, start_service: Start
) -> None:
    provider.fault(on="create", match="video 2", do="lose_request")
    service = start_service(sora_listing="partial", sora_submit_timeout=TIMEOUT * 1000)
    batch = make(service, *numbered(2), id="b")
    error = job_of(batch, "a: video 2").error
    assert error is not None
    assert error.code == "submission_unknown"
    assert "no answer: " in error.message
    assert "SORA_LISTING=whole" in error.message
    assert error.detail is not None
    assert "no answer: " in error.detail["met"]
    (unknown,) = [each for each in service.submissions("b") if each.state is SubmissionState.UNKNOWN]
    assert unknown.met is not None
    assert unknown.met.startswith("no answer: ")
    assert posts(provider) == dict.fromkeys(numbered(2), 1)


def test_adoption_does_not_wait_for_the_time_of_a_proof(provider: Provider, start_service: Start) -> None:
    provider.fault(on="create", do="lose_response")
    service = start_service(sora_listing="partial", sora_submit_timeout=600_000)
    assert make(service, "a boat").status == "completed"
    assert posts(provider) == {"a boat": 1}


# --- POSTs that are held back


@pytest.mark.parametrize("listing_hangs", [False, True], ids=["", "listing hangs too"])
@pytest.mark.parametrize("factor", [0.5, 1.0, 2.0, 4.0])
def test_a_post_that_is_taken_in_late_is_paid_for_once(
    factor: float, listing_hangs: bool, provider: Provider, start_service: Start
) -> None:
    service = start_service(sora_submit_timeout=TIMEOUT * 1000, sora_settle=300)
    assert make(service, "a: first").status == "completed"
    held = factor * TIMEOUT
    provider.fault(on="create", match="held", do="hang", accept=False, seconds=held, then="answer")
    if listing_hangs:
        provider.fault(on="list", do="hang", accept=False, seconds=held, then="answer", times=2)
    batch = make(service, "a: held", id="b")
    provider.wait_until(
        lambda ledger: any(video["prompt"] == "a: held" for video in ledger["videos"]), timeout=PATIENCE
    )
    assert codes(batch)[0] in (None, "submission_unknown")
    assert posts(provider)["a: held"] == 1
    if batch.status != "completed":
        assert service.retry_batch("b", job_ids=["b-01"]).result(PATIENCE).status == "completed"
    check_paid_once(provider)


def test_a_post_that_timed_out_is_never_proved_absent(provider: Provider, start_service: Start) -> None:
    service = start_service(sora_submit_timeout=400, sora_settle=100)
    assert make(service, "a: first").status == "completed"
    provider.fault(on="create", match="held", do="hang", accept=False, then="answer")
    batch = make(service, "a: held", id="b")
    assert codes(batch) == ["submission_unknown"]
    assert "SORA_SUBMIT_TIMEOUT" in str(batch.jobs[0].error)
    provider.release("requests")
    provider.wait_until(
        lambda ledger: any(video["prompt"] == "a: held" for video in ledger["videos"]), timeout=PATIENCE
    )
    assert service.retry_batch("b", job_ids=["b-01"]).result(PATIENCE).status == "completed"
    assert posts(provider)["a: held"] == 1


def test_a_post_whose_sender_is_suspended_is_never_proved_absent(
    provider: Provider, start_service: Start, drivers: Drivers, options: Callable[..., Any]
) -> None:
    """Its connection is open as long as its process lives: the server may take it in at any time."""
    short = {"sora_submit_timeout": TIMEOUT * 1000, "sora_settle": 100}
    service = start_service(**short)
    assert make(service, "a: first").status == "completed"
    provider.fault(on="create", match="held", do="hang", accept=False, then="answer")
    sender = drivers.start(options=options(**short), request=videos("a: held", id="b"))
    provider.wait(hanging=1)
    os.kill(sender, signal.SIGSTOP)
    service.cancel_batch("b")
    batch = service.retry_batch("b", job_ids=["b-01"]).result(PATIENCE)
    assert codes(batch) == ["submission_unknown"]
    assert "SORA_SUBMIT_TIMEOUT" in str(batch.jobs[0].error)
    provider.release("requests")
    provider.wait_until(
        lambda ledger: any(video["prompt"] == "a: held" for video in ledger["videos"]), timeout=PATIENCE
    )
    os.kill(sender, signal.SIGCONT)
    drivers.end(sender)
    assert service.retry_batch("b", job_ids=["b-01"]).result(PATIENCE).status == "completed"
    assert posts(provider)["a: held"] == 1


class HoldingFront:
    """A proxy before a server that warms up: it answers 504 after a while, and delivers what it was given all the same."""

    def __init__(self, upstream: str, gives_up_after: float) -> None:
        self._upstream, self._gives_up_after = upstream.removesuffix("/v1"), gives_up_after
        self.warm, self._listed = asyncio.Event(), asyncio.Event()
        self.holds = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._late: set[asyncio.Task[Any]] = set()

    def __enter__(self) -> Self:
        self._thread.start()
        self.base_url = asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(PATIENCE)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(PATIENCE)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE)
        self._loop.close()

    def hold(self, seconds: float) -> None:
        """Hold everything back for so long."""
        self.holds = True
        self._loop.call_soon_threadsafe(self._loop.call_later, seconds, self.warm.set)

    async def _start(self) -> str:
        self._session = aiohttp.ClientSession(auto_decompress=False)
        app = web.Application(client_max_size=1 << 26)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        return f"http://127.0.0.1:{self._runner.addresses[0][1]}/v1"

    async def _stop(self) -> None:
        if self._late:
            await asyncio.wait(self._late, timeout=PATIENCE)
        await self._runner.cleanup()
        await self._session.close()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        task = asyncio.create_task(self._forward(request, body))
        self._late.add(task)
        task.add_done_callback(self._late.discard)
        try:
            return await asyncio.wait_for(asyncio.shield(task), self._gives_up_after)
        except TimeoutError:
            return web.json_response({"error": "gateway timeout"}, status=504)

    async def _forward(self, request: web.Request, body: bytes) -> web.Response:
        if self.holds:
            await self.warm.wait()
            if request.method == "POST":  # it is let go together with the listings, and takes longer
                async with asyncio.timeout(PATIENCE):
                    await self._listed.wait()
        headers = {name: value for name, value in request.headers.items() if name.lower() not in ("host", "connection")}
        async with self._session.request(request.method, f"{self._upstream}{request.path_qs}", data=body, headers=headers) as answer:  # fmt: skip
            content = await answer.read()
            if self.holds and request.method == "GET":
                self._listed.set()
            kept = {name: value for name, value in answer.headers.items() if name.lower() in ("content-type", "date")}
            return web.Response(body=content, status=answer.status, headers=kept)


@pytest.fixture
def front(provider: Provider) -> Iterator[HoldingFront]:
    with HoldingFront(provider.base_url, 0.4 * TIMEOUT) as front:
        yield front


@pytest.mark.parametrize("factor", [0.5, 1.0, 2.0, 4.0])
def test_a_server_that_warms_up_behind_a_proxy_makes_a_video_once(
    factor: float, front: HoldingFront, provider: Provider, start_service: Start
) -> None:
    """The proxy's answer is no word on the POST, and the listing is held back and released together with it."""
    service = start_service(openai_base_url=front.base_url, sora_submit_timeout=TIMEOUT * 1000, sora_settle=600)
    assert make(service, "a: first").status == "completed"
    front.hold(factor * TIMEOUT + (2.0 if factor > 1 else 0.0))
    batch = make(service, "a: held", id="b")
    provider.wait_until(
        lambda ledger: any(video["prompt"] == "a: held" for video in ledger["videos"]), timeout=PATIENCE
    )
    assert codes(batch)[0] in (None, "submission_unknown")
    assert posts(provider)["a: held"] == 1
    check_paid_once(provider)


# --- keys


def test_any_key_of_an_address_goes_on_with_a_batch(provider: Provider, start_service: Start) -> None:
    provider.hold()
    first = start_service(openai_api_key="sk-old-key")
    batch = first.create_batch(videos(*numbered(4), id="b"))
    first.process_batch(batch.id)
    provider.wait(accepted=3)
    first.close()
    second = start_service(openai_api_key="sk-new-key", openai_base_url=provider.base_url + "/")
    (running,) = second.resume_batches()
    provider.release()
    final = running.result(PATIENCE)
    assert final.status == "completed"
    assert posts(provider) == dict.fromkeys(numbered(4), 1)
    check_files(final, provider)
    check_journal(second, "b")


@pytest.mark.parametrize("fault", ["lose_response", "lose_request"])
def test_only_the_key_that_sent_a_post_tells_what_became_of_it(
    fault: str, provider: Provider, start_service: Start
) -> None:
    provider.fault(on="list", do="answer", status=404, times=-1)
    provider.fault(on="create", do=fault)
    quick = {"sora_submit_timeout": TIMEOUT * 1000}
    first = start_service(openai_api_key="sk-old-key", **quick)
    assert codes(make(first, "a: boat", id="b")) == ["submission_unknown"]
    first.close()
    provider.clear_faults()
    second = start_service(openai_api_key="sk-new-key", **quick)
    batch = second.retry_batch("b", job_ids=["b-01"]).result(PATIENCE)
    assert codes(batch) == ["submission_unknown"]
    assert "another key" in str(batch.jobs[0].error)
    assert posts(provider) == {"a: boat": 1}
    second.close()
    third = start_service(openai_api_key="sk-old-key", **quick)
    assert third.retry_batch("b", job_ids=["b-01"]).result(PATIENCE).status == "completed"
    assert posts(provider) == {"a: boat": 1 if fault == "lose_response" else 2}
    check_paid_once(provider)


# --- the id that an answer tells


def test_an_adoption_is_taken_back_by_the_answer_that_tells_the_id(provider: Provider, start_service: Start) -> None:
    """A sender that was thought dead hears its answer after all; whoever had adopted its video is resolved anew."""
    provider.hold()
    provider.fault(on="create", match="a: boat", do="lose_response")
    service = start_service(sora_submit_timeout=TIMEOUT * 1000)
    running = service.process_batch(service.create_batch(videos("a: boat", id="b")).id)
    adopted = until(lambda: next((each for each in service.submissions("b") if each.adopted), None))
    storage = service._storage
    late = an_intent("late", provider=service.provider, batch_id="other", job_id="other-01")
    service._write(lambda: storage.submissions.intend([late]))
    assert service._write(lambda: bind_told(storage, "late", adopted.remote_id)) is Bind.BOUND
    provider.release()
    final = running.result(PATIENCE)
    first, second = service.submissions("b")
    assert (first.state, first.remote_id, first.former_remote_id) == ("absent", None, adopted.remote_id)
    assert (final.status, second.state) == ("completed", "bound")
    assert posts(provider) == {"a: boat": 2}  # the first one was the other sender's
    check_files(final, provider)


class CountingServer:
    """A home-made server: it keeps its videos in memory, and numbers them from 1 after each restart."""

    def __init__(self) -> None:
        self.posts: Counter[str] = Counter()
        self.lose_next = self.tells_times = False
        self._videos: dict[str, dict[str, Any]] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def restart(self) -> None:
        self._videos.clear()

    def __enter__(self) -> Self:
        self._thread.start()
        self.base_url = asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(PATIENCE)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(PATIENCE)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE)
        self._loop.close()

    async def _start(self) -> str:
        app = web.Application()
        app.router.add_post("/v1/videos", self._create)
        app.router.add_get("/v1/videos", self._list)
        app.router.add_get("/v1/videos/{id}", self._look)
        app.router.add_get("/v1/videos/{id}/content", self._content)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        return f"http://127.0.0.1:{self._runner.addresses[0][1]}/v1"

    async def _create(self, request: web.Request) -> web.StreamResponse:
        prompt = str((await request.post())["prompt"])
        self.posts[prompt] += 1
        video = {"id": str(len(self._videos) + 1), "object": "video", "status": "completed", "prompt": prompt}
        if self.tells_times:
            video["created_at"] = int(time.time())
        self._videos[video["id"]] = video
        if self.lose_next:
            self.lose_next = False
            assert request.transport is not None
            request.transport.abort()
        return web.json_response(video)

    async def _list(self, _request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": list(self._videos.values())[::-1], "has_more": False})

    async def _look(self, request: web.Request) -> web.Response:
        video = self._videos.get(request.match_info["id"])
        return web.json_response(video or {"error": "not found"}, status=200 if video else 404)

    async def _content(self, request: web.Request) -> web.Response:
        prompt = self._videos[request.match_info["id"]]["prompt"]
        return web.Response(body=b"\0\0\0\x18ftypmp42" + prompt.encode(), content_type="video/mp4")


@pytest.fixture
def counting() -> Iterator[CountingServer]:
    with CountingServer() as server:
        yield server


@pytest.mark.parametrize("listing", ["partial", "whole"])
def test_a_server_that_counts_from_one_again_makes_the_next_batch(
    listing: str, counting: CountingServer, start_service: Start
) -> None:
    service = start_service(openai_base_url=counting.base_url, sora_listing=listing)
    first = make(service, *numbered(3, "one"), id="one")
    counting.restart()
    second = make(service, *numbered(3, "two"), id="two")
    assert (first.status, second.status) == ("completed", "completed")
    assert set(counting.posts.values()) == {1}
    assert {each.remote_id for each in service.submissions("one")} == {None}
    assert {each.former_remote_id for each in service.submissions("one")} == {"1", "2", "3"}
    assert service._storage.database.read(lambda: service._storage.servers.reuses_ids(counting.base_url))


@pytest.mark.parametrize("listing", ["partial", "whole"])
@pytest.mark.parametrize("tells_times", [False, True])
@pytest.mark.parametrize(
    ("first", "second"), [("a: boat", "a: lake"), ("a: boat", "a: boat")], ids=["another", "same prompt"]
)
def test_a_lost_answer_of_a_server_that_counts_from_one_again_is_not_paid_for_twice(
    first: str, second: str, tells_times: bool, listing: str, counting: CountingServer, start_service: Start
) -> None:
    counting.tells_times = tells_times
    service = start_service(openai_base_url=counting.base_url, sora_listing=listing, sora_submit_timeout=TIMEOUT * 1000)
    assert make(service, first, id="one").status == "completed"
    counting.restart()
    counting.lose_next = True
    before = counting.posts[second]
    batch = make(service, second, id="two")
    assert codes(batch)[0] in (None, "submission_unknown")
    assert counting.posts[second] == before + 1
