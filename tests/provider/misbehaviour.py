"""How a fault's rule is carried out on one request: what each `do` of `faults` means on the wire."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from tests.provider import connections, replies
from tests.provider.connections import Gate
from tests.provider.faults import NO_BODY, Rule
from tests.provider.replies import Reply


@dataclass(slots=True)
class Call:
    """A request, and what it does to the studio when it is carried out."""

    request: web.Request
    carry_out: Callable[[], Reply]
    video_id: str = ""


class Misbehaviour:
    def __init__(self, gate: Gate) -> None:
        self.other_url = ""
        """Where redirects lead to that name no address."""
        self._gate = gate

    async def perform(self, rule: Rule, call: Call) -> web.StreamResponse:  # noqa: PLR0911 - one a `do`
        match rule.do:
            case "answer":
                return _answer(rule, call).response()
            case "lose_request":
                return connections.close(call.request)
            case "lose_response":
                call.carry_out()
                return connections.close(call.request)
            case "reset":
                _carried_out(rule, call)
                return connections.reset(call.request)
            case "hang":
                return await self._hang(rule, call)
            case "redirect":
                return self._redirect(rule, call).response()
            case _:
                return await self._send_half(rule, call)

    async def _hang(self, rule: Rule, call: Call) -> web.StreamResponse:
        reply = _carried_out(rule, call)
        await self._gate.wait(rule.seconds)
        if rule.then == "answer":
            return (reply or call.carry_out()).response()
        return connections.close(call.request) if rule.then == "close" else connections.reset(call.request)

    def _redirect(self, rule: Rule, call: Call) -> Reply:
        _carried_out(rule, call)
        target = (rule.to or self.other_url + "/{id}").replace("{id}", call.video_id)
        return Reply(b"", rule.status or 302, rule.headers | {"Location": target})

    async def _send_half(self, rule: Rule, call: Call) -> web.StreamResponse:
        reply = call.carry_out()
        whole = reply.raw()
        half = len(whole) // 2 if rule.bytes is None else rule.bytes
        response = web.StreamResponse(status=reply.status, headers=reply.headers)
        response.content_type, response.content_length = reply.content_type, len(whole)
        await response.prepare(call.request)
        await response.write(whole[:half])
        if rule.do == "short":
            connections.close(call.request)
            return response
        await self._gate.wait(rule.seconds)
        if rule.then == "reset":
            connections.reset(call.request)
        elif rule.then == "close":
            connections.close(call.request)
        else:
            with suppress(ConnectionError):  # whoever asked has left
                await response.write(whole[half:])
        return response


def _carried_out(rule: Rule, call: Call) -> Reply | None:
    return call.carry_out() if rule.carries_out else None


def _answer(rule: Rule, call: Call) -> Reply:
    reply = _carried_out(rule, call)
    if reply is None or not rule.keeps_body:
        return _given(rule)
    body = _changed_listing(rule, reply.body) if "list" in rule.on else _changed(rule, reply.body)
    return Reply(body, rule.status or reply.status, reply.headers | rule.headers, reply.content_type)


def _given(rule: Rule) -> Reply:
    status = rule.status or 200
    if rule.body is NO_BODY:
        return replies.error(status, f"a fault of the test: {status}", headers=rule.headers)
    return Reply(rule.body, status, rule.headers)


def _changed(rule: Rule, body: Any) -> Any:
    if not isinstance(body, dict):
        return body
    return {key: value for key, value in (body | rule.set).items() if key not in rule.drop}


def _changed_listing(rule: Rule, body: Any) -> Any:
    if "data" not in body:
        return body
    changed = body | {"data": [_changed(rule, entry) for entry in body["data"]]}
    if not rule.paging:
        changed = {key: changed[key] for key in ("object", "data")}
    return changed
