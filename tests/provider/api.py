"""The Videos API: five routes, each carried out as WIRE.md says, or as a fault's rule says.

It keeps the ledger of what was asked; what is made is the studio's affair.
"""

import time
import zlib
from collections.abc import Callable
from functools import partial
from itertools import count, islice
from random import Random

from aiohttp import web

from tests.provider import connections, mp4, replies
from tests.provider.faults import Faults, Rule
from tests.provider.form import read_fields
from tests.provider.misbehaviour import Call, Misbehaviour
from tests.provider.records import TERMINAL, Ledger, Post, Video
from tests.provider.replies import Reply
from tests.provider.studio import Studio

LONGEST_PROMPT = 32_000


class VideosApi:
    def __init__(self, studio: Studio, faults: Faults, misbehaviour: Misbehaviour, changed: Callable[[], None]) -> None:
        self._studio = studio
        self._faults = faults
        self._misbehaviour = misbehaviour
        self._changed = changed
        self._random, self._turns = Random(studio.options.seed), count()  # noqa: S311 - chance is to be repeatable

    @property
    def _ledger(self) -> Ledger:
        return self._studio.ledger

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/v1/videos", self.create),
            web.get("/v1/videos", self.listing, allow_head=False),
            web.get("/v1/videos/{id}", self.retrieve, allow_head=False),
            web.get("/v1/videos/{id}/content", self.content, allow_head=False),
            web.delete("/v1/videos/{id}", self.delete),
            web.route("*", "/{other:.*}", self.other),
        ]

    async def create(self, request: web.Request) -> web.StreamResponse:
        self._requested("create")
        post = self._ledger.posted(request.headers)
        try:
            body = await request.read()
        except ConnectionError:
            return connections.close(request)
        post.complete = True
        malformed = _read_into(post, body)
        self._changed()
        response = await self._create(request, post, malformed)
        if connections.is_open(request):
            self._ledger.answered_with(post, response.status)
            self._changed()
        return response

    async def listing(self, request: web.Request) -> web.StreamResponse:
        self._requested("list")
        if refusal := self._stranger(request):
            return refusal.response()
        rule = self._faults.take("list")
        call = Call(request, partial(self._page, request, rule.lag if rule else 0.0))
        return await self._respond(rule, call)

    async def retrieve(self, request: web.Request) -> web.StreamResponse:
        self._requested("retrieve")
        if video := self._known(request):
            video.polls += 1
        return await self._on_video("retrieve", request, self._job)

    async def content(self, request: web.Request) -> web.StreamResponse:
        self._requested("content")
        variant = request.query.get("variant", "video")
        response = await self._on_video("content", request, partial(_content, variant))
        video = self._known(request)
        if video and _is_whole(response, video) and connections.is_open(request):
            self._ledger.fetched_whole(video)
            self._changed()
        return response

    async def delete(self, request: web.Request) -> web.StreamResponse:
        self._requested("delete")
        return await self._on_video("delete", request, self._delete)

    async def other(self, request: web.Request) -> web.StreamResponse:
        if (request.method, request.path) == ("GET", "/v1/models"):  # LiteLLM looks there by itself
            self._requested("models")
            return Reply({"object": "list", "data": []}).response()
        self._requested("other")
        return replies.error(404, f"no such route: {request.method} {request.path}").response()

    async def _create(self, request: web.Request, post: Post, malformed: str | None) -> web.StreamResponse:
        if refusal := self._stranger(request):
            return refusal.response()
        rule = self._faults.take("create", post.prompt)
        if rule:
            post.fault = rule.do
        return await self._respond(rule, Call(request, partial(self._accept, request, post, malformed)))

    async def _on_video(
        self, route: str, request: web.Request, carry_out: Callable[[Video], Reply]
    ) -> web.StreamResponse:
        if refusal := self._stranger(request):
            return refusal.response()
        video_id = request.match_info["id"]
        video = self._known(request)
        if video is None:
            return await self._respond(self._faults.take(route), Call(request, _not_found, video_id))
        status = video.status if video.status in TERMINAL else "running"
        rule = self._faults.take(route, video.prompt, status)
        return await self._respond(rule, Call(request, partial(carry_out, video), video_id))

    async def _respond(self, rule: Rule | None, call: Call) -> web.StreamResponse:
        if rule is None:
            return call.carry_out().response()
        self._changed()
        return await self._misbehaviour.perform(rule, call)

    def _accept(self, request: web.Request, post: Post, malformed: str | None) -> Reply:
        if malformed is not None:
            return replies.error(400, malformed, "invalid_request")
        video = self._studio.accept(post, self._replica(request))
        self._changed()
        reply = self._job(video)
        reply.headers.update(replies.price_header(video, self._studio.options))
        reply.headers.update(self._studio.options.create_headers)
        return reply

    def _job(self, video: Video) -> Reply:
        return Reply(replies.job(video, self._studio.options))

    def _delete(self, video: Video) -> Reply:
        self._studio.delete(video)
        return Reply(replies.deleted(video))

    def _page(self, request: web.Request, lag: float) -> Reply:
        query = request.query
        try:
            limit, order = int(query.get("limit", "20")), query.get("order", "desc")
        except ValueError:
            return replies.error(400, "limit must be a whole number", "invalid_request")
        if not 0 <= limit <= 100 or order not in {"asc", "desc"}:
            return replies.error(400, "limit must be 0 to 100, order asc or desc", "invalid_request")
        latest = time.time() - lag
        listed = self._after(query.get("after"), order, self._replica(request))
        shown = [video for video in listed if video.accepted_at <= latest]
        page = [replies.job(video, self._studio.options) for video in islice(shown, limit)]
        return Reply(replies.listing(page, has_more=len(shown) > limit))

    def _after(self, video_id: str | None, order: str, replica: int) -> list[Video]:
        videos = [video for video in self._ledger.videos.values() if video.known and video.replica == replica]
        if order == "desc":
            videos.reverse()
        if video_id is None:
            return videos
        places = {video.id: place for place, video in enumerate(videos)}
        return videos[places[video_id] + 1 :] if video_id in places else []

    def _known(self, request: web.Request) -> Video | None:
        video = self._ledger.videos.get(request.match_info["id"])
        return video if video and video.known and video.replica == self._replica(request) else None

    def _replica(self, request: web.Request) -> int:
        """Which of the servers behind the address answers this request."""
        if "replica" not in request:
            request["replica"] = self._chosen(request) % self._studio.options.replicas
        return int(request["replica"])

    def _chosen(self, request: web.Request) -> int:
        match self._studio.options.replica_choice:
            case "random":
                return self._random.randrange(self._studio.options.replicas)
            case "round_robin":
                return next(self._turns)
            case _:
                # The system gives out every other port: they are spread.
                peer = request.transport and request.transport.get_extra_info("peername")
                return zlib.crc32(repr(peer).encode())

    def _stranger(self, request: web.Request) -> Reply | None:
        key = self._studio.options.api_key
        if key is None or request.headers.get("Authorization") == f"Bearer {key}":
            return None
        return replies.error(401, "Incorrect API key provided.", "invalid_api_key")

    def _requested(self, route: str) -> None:
        self._ledger.requested(route)
        self._changed()


def _read_into(post: Post, body: bytes) -> str | None:
    """Read the fields; return what is wrong with them."""
    try:
        post.fields = read_fields(post.content_type, body)
    except ValueError as error:
        return str(error)
    prompt = post.fields.get("prompt")
    if not isinstance(prompt, str) or not 1 <= len(prompt) <= LONGEST_PROMPT:
        return f"prompt: a text of 1 to {LONGEST_PROMPT} characters is needed"
    post.prompt = prompt
    return None


def _content(variant: str, video: Video) -> Reply:
    if video.status == "completed" and variant == "video":
        return Reply(mp4.content(video.id, video.bytes), content_type="video/mp4")
    if video.status == "failed":
        return replies.error(422, "The video has failed.")
    return replies.error(404, "The video is not ready, or has no such variant.", "not_found")


def _is_whole(response: web.StreamResponse, video: Video) -> bool:
    sent = (response.status, response.content_type, response.content_length)
    return sent == (200, "video/mp4", video.bytes)


def _not_found() -> Reply:
    return replies.error(404, "No such video.", "not_found")
