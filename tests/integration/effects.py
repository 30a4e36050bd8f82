"""Gets between the effects of the product: whatever leaves a mark outside its process, a moment before and after.

An effect is one of the kinds below. Each is told with the name of the crash point that is marked in the function that
has it, looked for in the stack of calls, so that a new effect in a place without a marker is noticed (`unnamed`).
"""

import functools
import inspect
import os
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import aiohttp
import peewee
import pika

from storage.database import Database
from tests.integration.crash_markers import PACKAGES, ROOT
from tests.integration.crash_points import POINTS, Kind, Point

Told = Callable[[str, str, int], object]
"""`(side, name of the point, how many of it)`; `side` is `before` or `after`."""

_WRITES = ("INSERT", "UPDATE", "DELETE", "CREATE", "ALTER", "DROP")
_FILE_EVENTS = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree", "os.truncate", "os.link"}


def install(told: Told, unnamed: Callable[[str], object] | None = None) -> None:
    """Get between, in this process, from now on; `unnamed` hears of each effect that no point names."""
    _Watch(told, unnamed or (lambda _: None)).install(thorough=unnamed is not None)


class _Watch:
    def __init__(self, told: Told, unnamed: Callable[[str], object]) -> None:
        self._told, self._unnamed = told, unnamed
        self._by_place: dict[tuple[Kind, str], list[Point]] = {}
        for point in POINTS.values():
            self._by_place.setdefault((point.kind, point.place), []).append(point)
        self._places = {point.place for point in POINTS.values()}
        self._local = threading.local()

    def install(self, *, thorough: bool) -> None:
        self._commits()
        self._requests()
        for name in ("basic_ack", "basic_nack"):
            self._consumer(Kind.SETTLE, name)
        for point in POINTS.values():
            if point.kind is Kind.CALL:
                self._call(point)
        if thorough:
            self._see_that_all_have_names()

    def _here(self, kind: Kind, what: str) -> tuple[Counter[str], FrameType | None]:
        """The point of the outermost place in the stack that has one of this kind, how many it is of it, and the call."""
        found, frame = None, sys._getframe(2)
        for each in _frames(frame):
            if (kind, _place(each.f_code)) in self._by_place:
                found = each
        if found is None:
            self._unnamed(
                f"{kind}: {what} in {[_place(each.f_code) for each in _frames(frame) if _place(each.f_code)]}"
            )
            return Counter(), None
        points = self._by_place[kind, _place(found.f_code)]
        counts = Counter({point.name: point.counts(found.f_locals) for point in points})
        return +counts, found

    def _tell(self, side: str, names: Mapping[str, int]) -> None:
        for name, count in names.items():
            self._told(side, name, count)

    # --- the database

    def _commits(self) -> None:
        begin, execute, local, watch = Database.begin, peewee.Database.execute_sql, self._local, self

        @contextmanager
        def watched(database: Database, **how: bool) -> Iterator[None]:
            # What one call writes in several statements is one effect. Held as frames: the next call's is another one.
            calls: dict[FrameType | None, Counter[str]] = {}

            def names() -> Counter[str]:
                return sum(calls.values(), Counter())

            with begin(database, **how):
                database.after_commit(lambda: watch._tell("after", names()))
                local.calls = calls
                try:
                    yield
                    watch._tell("before", names())
                finally:
                    local.calls = None

        def executing(database: Any, sql: str, params: Any = None) -> Any:
            if not sql.lstrip().upper().startswith(_WRITES):
                return execute(database, sql, params)
            names, call = watch._here(Kind.COMMIT, sql[:60])
            if (calls := getattr(local, "calls", None)) is not None:
                calls[call] = calls.get(call, Counter()) | names
                return execute(database, sql, params)
            watch._tell("before", names)
            answer = execute(database, sql, params)
            watch._tell("after", names)
            return answer

        Database.begin = watched  # type: ignore[method-assign]
        peewee.Database.execute_sql = executing

    # --- the network

    def _requests(self) -> None:
        request = aiohttp.ClientSession._request

        async def watched(session: Any, method: str, url: Any, **how: Any) -> Any:
            names, _ = self._here(Kind.REQUEST, f"{method} {url}")
            self._tell("before", names)
            answer = await request(session, method, url, **how)
            self._tell("after", names)
            return answer

        aiohttp.ClientSession._request = watched  # type: ignore[method-assign]

    def _consumer(self, kind: Kind, name: str) -> None:
        original = getattr(pika.channel.Channel, name)

        def watched(channel: Any, *arguments: Any, **named: Any) -> Any:
            names, _ = self._here(kind, name)
            self._tell("before", names)
            answer = original(channel, *arguments, **named)
            self._tell("after", names)
            return answer

        setattr(pika.channel.Channel, name, watched)

    # --- what is a function of the product

    def _call(self, point: Point) -> None:
        module, _, path = point.place.partition(":")
        owner: Any = import_module(module.removesuffix(".py").replace("/", "."))
        *parents, name = path.split(".")
        for parent in parents:
            owner = getattr(owner, parent)
        original = getattr(owner, name)
        parameters = list(inspect.signature(original).parameters)

        def passes(side: str, arguments: tuple[Any, ...]) -> None:
            if count := point.counts(dict(zip(parameters, arguments, strict=False))):
                self._told(side, point.name, count)

        if inspect.iscoroutinefunction(original):

            @functools.wraps(original)
            async def waiting(*arguments: Any, **named: Any) -> Any:
                passes("before", arguments)
                answer = await original(*arguments, **named)
                passes("after", arguments)
                return answer

            setattr(owner, name, waiting)
            return

        @functools.wraps(original)
        def watched(*arguments: Any, **named: Any) -> Any:
            passes("before", arguments)
            answer = original(*arguments, **named)
            passes("after", arguments)
            return answer

        setattr(owner, name, watched)
        if not parents:  # whoever imported the function by its name has it, too
            for module in [each for key, each in sys.modules.items() if key.startswith(("actors.", "storage."))]:
                if vars(module).get(name) is original:
                    setattr(module, name, watched)

    # --- what the above would not see

    def _see_that_all_have_names(self) -> None:
        fsync, publish = os.fsync, pika.channel.Channel.basic_publish

        def flushing(descriptor: int) -> None:
            self._see_a_name("fsync")
            fsync(descriptor)

        def publishing(channel: Any, *arguments: Any, **named: Any) -> Any:
            self._see_a_name("basic_publish")
            return publish(channel, *arguments, **named)

        os.fsync = flushing
        pika.channel.Channel.basic_publish = publishing
        sys.addaudithook(self._audited)

    def _audited(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            if not writes or "__pycache__" in str(path) or os.devnull == path:
                return
        elif event not in _FILE_EVENTS:
            return
        self._see_a_name(f"{event} {arguments}")

    def _see_a_name(self, what: str) -> None:
        places = [_place(frame.f_code) for frame in _frames(sys._getframe(2))]
        if any(places) and not self._places.intersection(places):
            self._unnamed(f"{what} in {[place for place in places if place]}")


def _frames(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


@functools.cache
def _place(code: CodeType) -> str:
    """Where in the product that is: `actors/service/upkeep.py:Upkeep.prune`; elsewhere ``."""
    try:
        path = Path(code.co_filename).relative_to(ROOT)
    except ValueError:
        return ""
    if path.parts[0] not in PACKAGES:
        return ""
    return f"{path.as_posix()}:{code.co_qualname.partition('.<locals>')[0]}"
