"""What the provider is told to do wrong: rules of its own (`tests/provider/faults.py`), some with a chance in them."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from email.utils import formatdate
from typing import Any

Fault = Callable[[random.Random], dict[str, Any]]


def _always(**fault: Any) -> Fault:
    return lambda _: fault


def _in_a_second(chance: random.Random) -> dict[str, Any]:
    """A pause that is told as a date, in this machine's right time."""
    date = formatdate(time.time() + chance.choice([1, 2]), usegmt=True)
    return {"on": ["create", "retrieve"], "do": "answer", "status": 429, "headers": {"Retry-After": date}}


FAULTS: list[Fault] = [
    _always(on="create", do="lose_response"),
    _always(on="create", do="lose_response"),
    _always(on="create", do="lose_request"),
    _always(on="create", do="reset", accept=True),
    _always(on="create", do="reset"),
    lambda chance: {"on": "create", "do": "hang", "accept": True, "seconds": chance.uniform(0.3, 6), "then": "close"},
    _always(on="create", do="hang", accept=True, seconds=1.0, then="answer"),
    _always(on="create", do="answer", status=503),
    _always(on="create", do="answer", status=503, accept=True),
    _always(on="create", do="answer", status=200, drop=["id"]),
    _always(on="create", do="answer", status=400, body={"error": {"message": "not today", "code": "invalid"}}),
    _always(on="create", do="answer", status=429, headers={"Retry-After": "1"}),
    _in_a_second,
    _always(on="retrieve", do="answer", status=500),
    _always(on="retrieve", do="answer", status=404),
    _always(on="retrieve", do="reset"),
    _always(on="retrieve", do="hang", seconds=3.0),
    _always(on="content", do="short"),
    _always(on="content", do="reset"),
    _always(on="content", do="stall", seconds=2.0),
    _always(on="content", do="stall", seconds=2.0, then="reset"),
    _always(on="list", do="answer", status=503),
    _always(on="list", do="answer", lag=1.0),
    _always(on="list", do="reset"),
    _always(on="delete", do="answer", status=409),
    _always(on="delete", do="lose_response"),
]
