"""What is to go wrong: rules that fire on requests, as values.

A rule is a JSON object. Which requests it fires on:

    on       create, retrieve, list, content, delete (a word or a list of them)
    match    a part of the prompt (none: every prompt; a list has no prompt)
    when     what the video must be: "running" or its final status (not for create and list)
    skip     how many such requests it lets pass first (0)
    times    how often it fires (1; -1: for ever)

What it does (`do`), and with what:

    answer          status, headers, body (JSON, or a string that is sent as it is), accept;
                    or the usual body, changed: set {field: value}, drop [field], job (true: unchanged),
                    on list for each entry, and there also lag (seconds that the newest videos stay unseen)
                    and paging (false: no first_id, last_id, has_more)
    lose_request    closes the connection, having done nothing
    lose_response   does what was asked, then closes the connection
    reset           RST; accept: does what was asked first
    hang            seconds (none: until released); accept: does what was asked before, not after;
                    then: answer, close or reset
    redirect        status (302), to (a URL with {id}; none: the server's other address), accept
    short           content: says its full length, sends `bytes` (half) and closes
    stall           content: sends `bytes` (half), waits as hang does, and sends the rest

`accept` is whether the request is carried out: for a create, whether a video is made, and so paid.
Not given, it is true for an answer with no status, with a 2xx or with the usual body, and else false.
"""

from collections import Counter
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self

ROUTES = ("create", "retrieve", "list", "content", "delete")
DEEDS = ("answer", "lose_request", "lose_response", "reset", "hang", "redirect", "short", "stall")
ENDINGS = ("answer", "close", "reset")

NO_BODY = ...
"""Ellipsis, since it survives being copied and pickled, and null is a body."""


@dataclass(slots=True, kw_only=True)
class Rule:
    on: tuple[str, ...]
    do: str
    match: str | None = None
    when: str | None = None
    skip: int = 0
    times: int = 1
    accept: bool | None = None
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    body: Any = NO_BODY
    set: dict[str, Any] = field(default_factory=dict)
    drop: list[str] = field(default_factory=list)
    job: bool = False
    lag: float = 0.0
    paging: bool = True
    seconds: float | None = None
    then: str = "answer"
    bytes: int | None = None
    to: str | None = None
    fired: int = 0

    @classmethod
    def parse(cls, document: object) -> Self:
        """Read a rule from JSON.

        Raises:
            ValueError: it says something that no rule says.
        """
        if not isinstance(document, dict):
            raise ValueError(f"a rule is a JSON object, not {document!r}")
        unknown = document.keys() - {known.name for known in fields(cls)} | document.keys() & {"fired"}
        if unknown or not {"on", "do"} <= document.keys():
            raise ValueError(f"a rule needs `on` and `do` and does not know {sorted(unknown)}: {document!r}")
        on = document["on"]
        rule = cls(**document | {"on": (on,) if isinstance(on, str) else tuple(on)})
        rule.check()
        return rule

    def check(self) -> None:
        _one_of("on", self.on, ROUTES)
        _one_of("do", (self.do,), DEEDS)
        _one_of("then", (self.then,), ENDINGS)
        if self.changes_body and (self.do != "answer" or self.accept is False or self.body is not NO_BODY):
            raise ValueError("only an answer that is carried out, with no body of its own, changes the usual one")
        if self.do in {"short", "stall"} and self.on != ("content",):
            raise ValueError(f"{self.do!r} is for content only, not for {self.on!r}")
        if "list" in self.on and (self.match or self.when):
            raise ValueError("a list has no prompt and no status to match")
        if "create" in self.on and self.when:
            raise ValueError("at its create a video has no status to match")

    @property
    def spent(self) -> bool:
        return 0 <= self.times <= self.fired

    @property
    def carries_out(self) -> bool:
        if self.accept is not None:
            return self.accept
        return self.do == "answer" and (self.keeps_body or self.status is None or self.status < 300)

    @property
    def keeps_body(self) -> bool:
        """Whether an answer has the usual body, perhaps changed."""
        if self.body is not NO_BODY or self.accept is False:
            return False
        return self.changes_body or self.status is None or self.status < 300

    @property
    def changes_body(self) -> bool:
        return self.job or bool(self.set or self.drop or self.lag) or not self.paging

    def fits(self, route: str, prompt: str | None, status: str | None) -> bool:
        if self.spent or route not in self.on:
            return False
        return (self.match is None or self.match in (prompt or "")) and self.when in {None, status}

    def as_json(self) -> dict[str, Any]:
        document = asdict(self)
        if self.body is NO_BODY:
            del document["body"]
        return document


class Faults:
    """The rules in force; the first that fits a request is the one that fires."""

    def __init__(self) -> None:
        self.rules: list[Rule] = []
        self.fired: Counter[str] = Counter()

    def take(self, route: str, prompt: str | None = None, status: str | None = None) -> Rule | None:
        for rule in self.rules:
            if not rule.fits(route, prompt, status):
                continue
            if rule.skip:
                rule.skip -= 1
                continue
            rule.fired += 1
            self.fired[rule.do] += 1
            return rule
        return None

    def clear(self) -> None:
        self.rules.clear()
        self.fired.clear()


def _one_of(name: str, values: tuple[str, ...], known: tuple[str, ...]) -> None:
    if not values or any(value not in known for value in values):
        raise ValueError(f"`{name}` must be of {known}, not {values!r}")
