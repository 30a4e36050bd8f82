"""One run: everything goes wrong for so many minutes, then all faults end, everything comes to its end and is judged."""

from __future__ import annotations

import json
import shutil
import tempfile
import threading
from collections import Counter
from contextlib import closing, suppress
from pathlib import Path
from time import monotonic
from typing import Any

import psycopg

from tests.chaos.customer import Heard, Sender
from tests.chaos.disturbances import lanes
from tests.chaos.evidence import Evidence, complaints, gather
from tests.chaos.house import LEASE, House
from tests.chaos.judge import judge
from tests.chaos.report import Report
from tests.integration.support import until

_START_SECONDS = 60.0
_CALM_SECONDS = 300.0
"""For everything to have its end once nothing goes wrong any more; what has not by then is told as wrong."""
_LOOK_SECONDS = 0.5


def chaos(seed: int, minutes: float, *, bucket: bool = False) -> Report:
    """Run, and tell what came of it. What is needed to look into what is wrong is kept in a folder that is told."""
    report = Report(seed, minutes)
    folder = Path(tempfile.mkdtemp(prefix="sora-batch-chaos-"))
    try:
        with House(folder, seed, bucket=bucket) as house, closing(Sender(house.rabbitmq.url)) as sender:
            evidence = _run(house, sender, report)
        report.wrong += judge(evidence)
        _count(evidence, report)
        if report.wrong:
            evidence.keep(folder)
    except Exception as error:  # what was found before is to be told all the same
        report.found(f"the run itself failed: {type(error).__name__}: {error}")
    finally:
        if report.wrong:
            report.wrong.append(f"the logs, and the evidence as far as there is any, are in {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    return report


def _run(house: House, sender: Sender, report: Report) -> Evidence:
    stopping = threading.Event()
    customer, others = lanes(house, sender, report, stopping)
    for service in house.services:
        service.start(service.name)
    until(lambda: all(service.serves for service in house.services), _START_SECONDS)
    try:
        for lane in (customer, *others):
            lane.start()
        stopping.wait(report.minutes * 60)
    finally:
        stopping.set()
        for lane in (*others, customer):
            lane.join()
    for proxy in house.proxies.values():
        proxy.mend()
    if house.gate is not None:
        house.gate.mend()
    _calm_down(house, sender, report)
    _wait_for_sweeps(house)
    exits = house.end_services()
    threading.Event().wait(LEASE + 1)  # for the leases of those that were killed
    report.log = complaints(house)
    return gather(house, house.listener.heard, sender.commands, customer.batches, exits)


def _calm_down(house: House, sender: Sender, report: Report) -> None:
    """Wait for the end of everything; services that end by themselves are started again meanwhile."""
    began, pause, heard = monotonic(), threading.Event(), house.listener.heard
    asked_again: set[str] = set()
    while monotonic() - began < _CALM_SECONDS:
        for service in house.services:
            served, code = service.serves, service.gone()
            if code is not None:
                if served:  # else what it needs was away when it was started
                    report.found(f"{service.name} ended by itself in the calm with {code}: {service.last_words()}")
                service.start(service.name)
        if _answered(sender, heard):
            for batch_id in _unwanted(house) - asked_again:
                # Its `process` came before its `create`, for too long, or a rival that was to end took the wish back.
                asked_again.add(batch_id)
                sender.send("process", {"batch_id": batch_id}, f"again-{batch_id}")
            if _answered(sender, heard) and _all_is_told(house, heard):
                break
        pause.wait(_LOOK_SECONDS)
    report.seconds_to_calm = monotonic() - began


def _wait_for_sweeps(house: House) -> None:
    """Of folders that each have one service, only that one removes the partial files of its killed processes."""
    if house.bucket is not None:
        with suppress(TimeoutError):  # what is left then is told as an orphan
            until(lambda: not list(house.videos.glob("*/*/*.part")), 4 * LEASE)


def _answered(sender: Sender, heard: Heard) -> bool:
    return all(command.id in heard.answers for command in sender.commands)


def _unwanted(house: House) -> set[str]:
    left = "SELECT id FROM batches WHERE status IN ('pending', 'processing') AND NOT wanted AND owner IS NULL"
    return {row["id"] for row in house.rows(left)}


def _all_is_told(house: House, heard: Heard) -> bool:
    try:
        rows: list[dict[str, Any]] = house.rows(
            "SELECT b.id, b.status, b.sequence, COALESCE(p.published, 0) AS published "
            "FROM batches b LEFT JOIN publications p ON p.batch_id=b.id"
        )
    except psycopg.Error:
        return False
    return all(
        row["status"] not in {"pending", "processing"}
        and row["published"] == row["sequence"] == heard.newest.get(row["id"])
        for row in rows
    )


def _count(evidence: Evidence, report: Report) -> None:
    report.batches.update(batch["status"] for batch in evidence.batches)
    report.videos.update(job["error"]["code"] if job["error"] else job["status"] for job in evidence.jobs)
    accepted = [post for post in evidence.posts if post["accepted"]]
    found = {row["id"] for row in evidence.submissions if row["adopted"]}
    known = {row["remote_id"] for row in evidence.submissions}
    report.payments.update({
        "POSTs": len(evidence.posts),
        "videos paid for": len(accepted),
        "of them found in the listing": len(found),
        "of them left open": sum(video["id"] not in known for video in evidence.made),
    })  # fmt: skip
    distinct = {arrival.id for arrival in evidence.arrivals}
    refused = [body for told in evidence.answers.values() for body in told if "command.rejected" in body]
    codes = Counter(json.loads(body)["data"]["errors"][0]["code"] for body in refused)
    report.messages.update({
        "commands": len(evidence.commands),
        "events": len(distinct),
        "told again": len(evidence.arrivals) - len(distinct),
        **{f"refused as {code}": count for code, count in codes.items()},
    })  # fmt: skip
