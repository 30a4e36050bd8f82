"""What customers do all the while: batches are created, cancelled and retried; also what they do by mistake."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

from tests.chaos.customer import Command, Heard, Sender
from tests.chaos.house import RATE, SECONDS
from tests.chaos.lane import Lane


class CustomerLane(Lane):
    """See the module."""

    rest = (0.2, 2.4)

    def __init__(self, sender: Sender, heard: Heard, *where: Any) -> None:
        super().__init__("customer", *where)
        self._sender, self._heard = sender, heard
        self.batches: list[str] = []
        self._unprocessed: list[str] = []
        self._number = 0
        self._deeds: list[tuple[int, Callable[[], None]]] = [
            (10, self._create), (4, self._cancel), (3, self._retry), (2, self._process), (2, self._say_it_again),
            (2, self._change_budget), (1, self._replay), (1, self._talk_nonsense),
        ]  # fmt: skip

    def disturb(self) -> None:
        weights, deeds = zip(*self._deeds, strict=True)
        self.chance.choices(deeds, weights)[0]()

    def mend(self) -> None:
        for batch_id in self._unprocessed:
            self._send("process", {"batch_id": batch_id})

    def _send(self, name: str, data: dict[str, Any]) -> Command:
        self._number += 1
        return self._sender.send(name, data, f"{name}-{self._number}")

    def _create(self) -> None:
        batch_id = f"b{len(self.batches) + 1:04d}"
        words = ["", "", "", "", "", "", "", "", "[fail] ", "[moderation] "]
        videos = [
            {"prompt": f"{batch_id}: {self.chance.choice(words)}video {number}"}
            for number in range(1, self.chance.randint(1, 6) + 1)
        ]
        process = self.chance.random() < 0.8
        if not process:
            self._unprocessed.append(batch_id)
        self.batches.append(batch_id)
        request = {"id": batch_id, "videos": videos, "concurrency": self.chance.randint(1, 3), "process": process}
        if self.chance.random() < 0.4:
            request["budget"] = self._budget()
        self._send("create", request)
        if self.chance.random() < 0.15:
            self.pause(0.0, 2.0)
            self._send("cancel", {"batch_id": batch_id, "reason": "it was a mistake"})

    def _any(self, batch_ids: list[str]) -> str | None:
        """As a rule a late one."""
        return self.chance.choice(batch_ids[-8:] or [None])

    def _cancel(self) -> None:
        batch_id = self._any([each for each in self.batches if each not in self._heard.ended])
        if batch_id is not None:
            self._send("cancel", {"batch_id": batch_id})

    def _retry(self) -> None:
        ended = dict(self._heard.ended)
        batch_id = self._any([each for each in self.batches if ended.get(each, "completed") != "completed"])
        if batch_id is not None:
            self._send("retry", {"batch_id": batch_id})

    def _budget(self) -> dict[str, Any]:
        """For some videos of a batch, or for all."""
        videos = self.chance.randint(1, 6)
        amounts = {"videos": videos, "seconds": videos * SECONDS, "USD": f"{videos * SECONDS * Decimal(RATE)}"}
        unit = self.chance.choice(sorted(amounts))
        return {"amount": amounts[unit], "unit": unit}

    def _change_budget(self) -> None:
        batch_id = self._any(self.batches)
        if batch_id is not None:
            budget = self._budget() if self.chance.random() < 0.8 else []
            ended = batch_id in self._heard.ended
            self._send(
                "retry" if ended and self.chance.random() < 0.5 else "update", {"batch_id": batch_id, "budget": budget}
            )

    def _process(self) -> None:
        if self._unprocessed:
            batch_id = self._unprocessed.pop(self.chance.randrange(len(self._unprocessed)))
            self._send("process", {"batch_id": batch_id})

    def _say_it_again(self) -> None:
        if self._sender.commands:
            self._sender.deliver(self.chance.choice(self._sender.commands[-20:]))

    def _replay(self) -> None:
        batch_id = self._any(self.batches)
        if batch_id is not None:
            self._send(self.chance.choice(["replay", "report"]), {"batch_id": batch_id})

    def _talk_nonsense(self) -> None:
        self._send(self.chance.choice(["create", "cancel", "retry"]), {"batch_id": "..", "videos": 7})
