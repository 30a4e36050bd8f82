"""Orders: how a request becomes a command, and its result an answer that can be given again."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aiohttp import web
from pydantic_core import to_json

from actors.batch.command_data import CommandName, CreateData, derived_id, read_data
from actors.batch.commands import CommandKey
from actors.batch.received import command_of
from actors.batch.requests import new_batch_id
from actors.errors import Conflict, FieldError, InvalidRequest, NotFound, OtherBody, SettingsError, Stale
from actors.web.bodies import Body
from actors.web.parameters import etag_of, expected_versions, idempotency_key
from actors.web.problems import CONTENT_TYPE, Refused, problem_of, refused
from storage.traces import read_trace

if TYPE_CHECKING:
    from collections.abc import Collection
    from typing import Any

    from actors.batch.commands import Command, CommandResult
    from actors.service import BatchService
    from actors.web.handlers import Site

_SOURCE = "/sora-batch/http"
"""In the inbox: whose ids the keys are."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, as it is kept in the inbox."""

    status: int
    document: Any = None
    headers: dict[str, str] = field(default_factory=dict)

    def text(self) -> str:
        """A line with status and headers, and the body."""
        body = "" if self.document is None else to_json(self.document).decode()
        return f"{json.dumps([self.status, self.headers])}\n{body}"


Answer = Callable[["CommandResult"], Reply]


@dataclass(frozen=True, slots=True)
class Order:
    """What a request asks for."""

    key: CommandKey | None
    trace: dict[str, str] | None
    expects: Collection[str] | None

    @classmethod
    def of(cls, request: web.Request, body: Body) -> Order:
        """Read the headers.

        Raises:
            InvalidRequest: the Idempotency-Key can't be one.
        """
        given = idempotency_key(request) if request.method == "POST" else None
        key = None if given is None else CommandKey(_SOURCE, given, body.digest)
        state = ",".join(request.headers.getall("tracestate", []))
        return cls(key, read_trace(request.headers.get("traceparent"), state), expected_versions(request))


class Orders:
    """Does what requests ask for. Its methods block."""

    def __init__(self, site: Site) -> None:
        self._service: BatchService = site.service

    def create(self, order: Order, document: dict[str, Any]) -> web.Response:
        """Create a batch.

        Raises:
            SoraBatchError, Refused: it can't be done.
        """
        data = self._read(CommandName.CREATE, document)
        assert isinstance(data, CreateData)
        batch_id = data.id or (new_batch_id() if order.key is None else derived_id(order.key.source, order.key.id))
        return self._obey(order, lambda: self._command(data, batch_id), self.created)

    def change(
        self, order: Order, name: CommandName, batch_id: str, document: dict[str, Any], answer: Answer
    ) -> web.Response:
        """Do something to a batch.

        Raises:
            SoraBatchError, Refused: it can't be done.
        """
        for given in ("batch_id", "batchId"):
            if given in document:
                text = f"{given}: unknown field; the batch is named by the path"
                raise InvalidRequest(text, (FieldError(f"/{given}", text, "no batch_id", "extra_forbidden"),))
        data = self._read(name, {**document, "batch_id": batch_id})
        return self._obey(order, lambda: self._command(data, batch_id), answer)

    def do(self, order: Order, command: Command, answer: Answer) -> web.Response:
        """Do a command that is complete.

        Raises:
            SoraBatchError, Refused: it can't be done.
        """
        return self._obey(order, lambda: command, answer)

    def answer(self, order: Order, reply: Reply) -> web.Response:
        """Answer what changes nothing, and keep the answer if it has a key.

        Raises:
            Refused: the key was used for another request.
        """
        made: list[str] = []
        text = reply.text() if order.key is None else self._keep(order, order.key, reply.text(), made)
        return _response(text, replayed=order.key is not None and not made)

    def created(self, done: CommandResult) -> Reply:
        """201 for a new batch, 200 for one that was there."""
        reply = self.shown(done, 201 if done.created else 200)
        return Reply(reply.status, reply.document, {**reply.headers, "Location": f"/api/v1/batches/{done.batch_id}"})

    def shown(self, done: CommandResult, status: int = 200) -> Reply:
        """The batch as it is after the command."""
        batch, sequence = self._service.current(done.batch_id)
        return Reply(status, batch, {"ETag": etag_of(batch, sequence)})

    def _read(self, name: CommandName, document: dict[str, Any]) -> Any:
        return read_data(name, document, self._service.settings.batch_max_size)

    def _command(self, data: Any, batch_id: str) -> Command:
        return command_of(data, self._service.settings, self._service.now(), batch_id=batch_id)

    def _obey(self, order: Order, command: Callable[[], Command], answer: Answer) -> web.Response:
        made: list[str] = []

        def told(done: CommandResult) -> str:
            made[:] = [answer(done).text()]
            return made[0]

        try:
            before = None if order.key is None else self._service.answered(order.key)
        except OtherBody:
            raise _used_twice(order) from None
        if before is not None:
            return _response(before, replayed=True)
        asked = command()  # what is wrong with it is not kept: the key is still good for the corrected request
        try:
            text = self._service.obey(asked, order.key, told, order.trace, order.expects)
        except OtherBody:
            raise _used_twice(order) from None
        except (SettingsError, Stale):
            raise
        except (InvalidRequest, NotFound, Conflict) as error:
            if order.key is None:
                raise
            text = self._refuse(order, order.key, error, made)
        return _response(text, replayed=not made)

    def _refuse(self, order: Order, key: CommandKey, error: Exception, made: list[str]) -> str:
        """Keep a refusal as its answer, as that of a command is kept."""
        problem = problem_of(error)
        assert problem is not None
        reply = Reply(problem.status, problem.document, {**problem.headers, "Content-Type": CONTENT_TYPE}).text()
        return self._keep(order, key, reply, made)

    def _keep(self, order: Order, key: CommandKey, text: str, made: list[str]) -> str:
        def answer() -> str:
            made[:] = [text]
            return text

        made.clear()
        try:
            return self._service.keep(key, answer)
        except OtherBody:
            raise _used_twice(order) from None


def _used_twice(order: Order) -> Refused:
    assert order.key is not None
    message = f"Idempotency-Key {order.key.id!r} was used before for another request: use a new one"
    error = FieldError("Idempotency-Key", message, "an unused key, or the same request", "id_used")
    return refused(422, message, (error,))


def _response(text: str, *, replayed: bool) -> web.Response:
    head, _, body = text.partition("\n")
    status, headers = json.loads(head)
    if replayed:
        headers = {**headers, "Idempotency-Replayed": "true"}
    if body:
        headers.setdefault("Content-Type", "application/json")
    return web.Response(status=status, body=body.encode() if body else None, headers=headers)
