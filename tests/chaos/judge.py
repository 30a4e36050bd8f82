"""Whether the promises were kept: counted from the evidence, with no code of the product. Pure.

Each check says what is wrong, one sentence a finding, with the ids that one needs to look into it.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

from tests.chaos.customer import ENDS, Arrival
from tests.chaos.evidence import QUEUES, Evidence, Row

_FINAL_JOB = {"completed", "failed", "cancelled"}
_UNRESOLVED = {"intended", "unknown", "clashed"}
_NOT_PAID = {"refused", "absent", "not_sent"}
_PAID_AND_GONE = {"failed", "deleted"}
"""A known failure: the video was made, and is no more."""
_ASIDE = {"updated", "budget_reached", "settled"}
"""Events that say nothing of a state."""
_MICROS = 10**6
_REFUSABLE = {"conflict", "not_found"}
"""For what a sensible command may be refused: it came too late, or too early."""


def judge(evidence: Evidence) -> list[str]:
    """All that is wrong."""
    return [finding for check in CHECKS for finding in check(evidence)]


def _everything_has_ended(seen: Evidence) -> Iterator[str]:
    missing = set(seen.created) - {batch["id"] for batch in seen.batches}
    if missing:
        yield f"batches were asked for and are not there: {sorted(missing)}"
    for batch in seen.batches:
        if batch["status"] not in ENDS:
            yield f"batch {batch['id']} is {batch['status']}: {_brief(batch)}"
    for job in seen.jobs:
        if job["status"] not in _FINAL_JOB:
            yield f"job {job['id']} is {job['status']}"
        elif (job["status"] == "failed") != (job["error"] is not None and job["error"]["code"] != "cancelled"):
            yield f"job {job['id']} is {job['status']} with the error {job['error']}"
        elif job["status"] == "failed" and job["error"]["code"] in {"internal", "timeout", "storage"}:
            yield f"job {job['id']} failed of our own: {job['error']}"


def _counts_add_up(seen: Evidence) -> Iterator[str]:
    jobs = _grouped(seen.jobs, "batch_id")
    for batch in seen.batches:
        states = Counter(job["status"] for job in jobs[batch["id"]])
        counted = {name: states[name] for name in sorted(_FINAL_JOB)} | {"total": states.total(), "processing": 0}
        if counted != (recorded := {name: batch[name] for name in counted}):
            yield f"batch {batch['id']} counts {recorded}, its jobs are {counted}"
        if batch["status"] in ENDS - {"cancelled"} and batch["status"] != _status(states):
            yield f"batch {batch['id']} is {batch['status']}, its jobs are {dict(states)}"


def _status(states: Counter[str]) -> str:
    if states["completed"] == states.total():
        return "completed"
    return "partial" if states["completed"] else "failed"


def _everything_is_told_in_order(seen: Evidence) -> Iterator[str]:
    recorded = _grouped(seen.journal, "batch_id")
    marks = {row["batch_id"]: row["published"] for row in seen.publications}
    told = _told(seen.arrivals)
    for batch in seen.batches:
        batch_id, rows = batch["id"], recorded[batch["id"]]
        numbers = [row["sequence"] for row in rows]
        if numbers != list(range(1, batch["sequence"] + 1)):
            yield f"the journal of batch {batch_id} has {numbers}, its sequence is {batch['sequence']}"
        first = list(told[batch_id])
        if first != numbers:
            yield f"of batch {batch_id} the first appearances were {first}, recorded are {numbers}"
        bodies = {row["sequence"]: {row["body"]} for row in rows}
        if different := [number for number in first if told[batch_id][number] != bodies.get(number)]:
            yield f"of batch {batch_id} the events {different} were told otherwise than recorded"
        if marks.get(batch_id) != batch["sequence"]:
            yield f"of batch {batch_id} {marks.get(batch_id)} events are marked as published of {batch['sequence']}"


def _told(arrivals: list[Arrival]) -> dict[str, dict[int, set[str]]]:
    """Of each batch, in the order of first appearances, the numbers and the bodies that came with them."""
    told: dict[str, dict[int, set[str]]] = defaultdict(dict)
    for arrival in arrivals:
        if arrival.words[0] != "command":
            number = int(arrival.id.rpartition(":")[2])
            told[arrival.words[2]].setdefault(number, set()).add(arrival.body.decode())
    return told


def _events_tell_the_truth(seen: Evidence) -> Iterator[str]:
    """A subscriber that follows the events knows how everything ended."""
    jobs, batches = {job["id"]: job["status"] for job in seen.jobs}, {row["id"]: row for row in seen.batches}
    last: dict[str, Any] = {}
    for row in seen.journal:
        document = json.loads(row["body"])
        if document["type"].split(".")[-2] not in _ASIDE:
            last[document["subject"]] = document
    for subject, document in last.items():
        name = document["type"].split(".")[-2]
        if subject in jobs and name != jobs[subject]:
            yield f"job {subject} is {jobs[subject]}, its last event is {name}"
        if subject in batches:
            batch, progress = batches[subject], document["data"]["progress"]
            shown = {key: progress[key] for key in ("total", "completed", "failed", "cancelled", "processing")}
            if name != batch["status"] or shown != {key: batch[key] for key in shown}:
                yield f"batch {subject} is {_brief(batch)}, its last event is {name} with {shown}"


def _finished_videos_are_whole(seen: Evidence) -> Iterator[str]:
    made = {video["id"]: video for video in seen.made}
    owned = set()
    for job in seen.jobs:
        if job["status"] != "completed":
            continue
        video, there = job["video"], made.get(job["remote_id"], {})
        place = video["path"] or video["uri"]
        owned.add(place)
        if seen.files.get(place) != (video["bytes"], video["sha256"]):
            yield f"job {job['id']}: {video} is recorded, the file is {seen.files.get(place)}"
        if (there.get("sha256"), there.get("prompt")) != (video["sha256"], job["prompt"]):
            yield f"job {job['id']} has another video than {job['remote_id']} at the provider: {there}"
    for path in sorted(seen.files.keys() - owned):
        yield f"an orphan file: {path} ({_owner_of(path, seen)})"


def _owner_of(path: str, seen: Evidence) -> str:
    job_id = path.rpartition("/")[2].partition(".")[0]
    return next((f"its job is {job['status']}: {job['error']}" for job in seen.jobs if job["id"] == job_id), "no job")


def _nothing_is_paid_twice(seen: Evidence) -> Iterator[str]:
    """A second POST for a video only after a known failure of the one before."""
    intents = {row["id"]: row for row in seen.submissions}
    videos = {video["id"]: video for video in seen.made}
    jobs = {job["prompt"]: job for job in seen.jobs}
    for prompt, posts in _grouped([post for post in seen.posts if post["complete"]], "prompt").items():
        job = jobs.get(prompt)
        if job is None:
            yield f"a POST for no job: {prompt!r}"
            continue
        keys = [post["idempotency_key"] for post in posts]
        if len(set(keys)) < len(keys):
            yield f"job {job['id']}: an intent was sent twice: {keys}"
        for number, post in enumerate(posts):
            intent = intents.get(post["idempotency_key"])
            if intent is None or intent["job_id"] != job["id"]:
                yield f"job {job['id']}: a POST without an intent: {post}"
                continue
            allowed = _PAID_AND_GONE if post["accepted"] else _PAID_AND_GONE | _NOT_PAID
            if number < len(posts) - 1 and intent["state"] not in allowed:
                yield f"job {job['id']} was submitted again after {_story(intent, post, videos)}"


def _whatever_is_paid_is_known(seen: Evidence) -> Iterator[str]:
    intents, jobs = {row["id"]: row for row in seen.submissions}, {job["id"]: job for job in seen.jobs}
    videos = {video["id"]: video for video in seen.made}
    for post in seen.posts:
        intent = intents.get(post["idempotency_key"])
        if not post["accepted"] or intent is None:
            continue
        if intent["remote_id"] == post["video_id"]:
            continue
        job = jobs[intent["job_id"]]
        code = job["error"]["code"] if job["error"] else None
        if intent["state"] not in _UNRESOLVED or code not in {"submission_unknown", "cancelled"}:
            story = _story(intent, post, videos)
            yield f"a video was paid for and nobody knows: job {job['id']} is {job['status']} ({code}), {story}"


def _each_charge_is_counted_once(seen: Evidence) -> Iterator[str]:
    """What a budget says that is used is the sum of the charges that count against it."""
    units = {batch["id"]: {each["unit"] for each in batch["budget"] or ()} for batch in seen.batches}
    for budget in seen.budgets:
        scope, period, unit = budget["scope"], budget["period"], budget["unit"]
        if scope == "batch" and unit not in units.get(period, ()):
            continue
        used = sum(_counted(row, unit) for row in seen.submissions if _belongs(row, scope, period))
        if used != budget["used_micros"]:
            yield f"the budget of {scope} {period} says that {budget['used_micros']} {unit} are used, it is {used}"


def _belongs(row: Row, scope: str, period: str) -> bool:
    match scope:
        case "batch":
            return bool(row["batch_id"] == period)
        case "day":
            return bool(row["day"] == period)
        case "month":
            return bool(row["day"][:7] == period)
        case _:
            return True


def _counted(row: Row, unit: str) -> int:
    if row["charge"] == "released":
        return 0
    if unit in ("videos", "seconds"):
        return _MICROS * (1 if unit == "videos" else int(row["seconds"]))
    return (
        int(row["charged_micros"]) + bool(row["charged_rest"])
        if row["charge"] == "charged"
        else int(row["reserved_micros"])
    )


def _whatever_is_paid_is_charged(seen: Evidence) -> Iterator[str]:
    """At the price that the provider has, where it told one; and no budget that nobody changed was exceeded."""
    charges, videos = {row["id"]: row for row in seen.submissions}, {video["id"]: video for video in seen.made}
    bills: dict[str, list[Row]] = defaultdict(list)
    for post in seen.posts:
        charge, video = charges.get(post["idempotency_key"]), videos.get(post["video_id"], {})
        if not post["accepted"] or charge is None:
            continue
        bills[charge["batch_id"]].append(video)
        price = int(Decimal(video["price"]) * _MICROS)
        if charge["charge"] == "released":
            yield f"a video was paid for, and its charge is released: {_story(charge, post, videos)}"
        elif _counted(charge, charge["currency"]) != price:
            yield f"a video costs {price}, its charge is {charge}"
    changed = {command.batch_id for command in seen.commands if command.name in {"update", "retry"}}
    for batch in seen.batches:
        for budget in [] if batch["id"] in changed else batch["budget"] or []:
            each = {"videos": lambda _: 1, "seconds": lambda video: int(video["seconds"])}
            amount = each.get(budget["unit"], lambda video: Decimal(video["price"]))
            if (spent := sum(map(amount, bills[batch["id"]]))) > Decimal(budget["amount"]):
                yield f"batch {batch['id']} has spent {spent}, its budget is {budget}"


def _story(intent: Row, post: Row, videos: dict[str, Row]) -> str:
    video = videos.get(post["video_id"], {})
    return (
        f"submission {intent['id']} is {intent['state']} ({intent['note']}), remote id {intent['remote_id']}; "
        f"the POST {post['number']} was accepted: {post['accepted']} as {post['video_id']} "
        f"({video.get('status')}), answered: {post['status']}, fault: {post['fault']}"
    )


def _the_limit_holds(seen: Evidence) -> Iterator[str]:
    """Where every video in the making held its job's place: not after a cancellation, nor where one was let go."""
    retried = {row["batch_id"] for row in seen.journal if row["type"] == "batch.retried"}
    left = {"submission_unknown", "network", "not_found", "download_failed", "server_error", "cancelled"}
    let_go = {job["batch_id"] for job in seen.jobs if job["error"] is not None and job["error"]["code"] in left}
    for batch in seen.batches:
        most = seen.most_at_once.get(batch["id"], 0)
        if most > batch["concurrency"] and batch["id"] not in retried | let_go:
            yield f"batch {batch['id']} had {most} videos in the making, its limit is {batch['concurrency']}"


def _commands_are_answered(seen: Evidence) -> Iterator[str]:
    names = {command.id: command.name for command in seen.commands}
    for command in seen.commands:
        answers = [json.loads(body) for body in seen.answers.get(command.id, [])]
        if not answers:
            yield f"the command {command.id} for {command.batch_id} was not answered: {command.body.decode()}"
        if len({answer["id"] for answer in answers}) > 1:
            yield f"the command {command.id} was answered in different ways: {answers}"
        for answer in answers:
            codes = {error["code"] for error in answer["data"].get("errors", [])}
            if codes - _REFUSABLE and "7" not in command.body.decode().partition('"videos":')[2][:3]:
                yield f"the command {command.id} for {command.batch_id} was refused: {answer['data']}"
    for body in seen.aside:  # all can be read
        command_id = json.loads(body)["id"]
        yield f"the command {command_id} ({names.get(command_id)}) was put aside"


def _nothing_is_left_lying(seen: Evidence) -> Iterator[str]:
    for owner in seen.owners:
        if owner["alive"]:
            yield f"a lease without its process: {owner}"
    for batch in seen.batches:
        if batch["owner"] is not None:
            yield f"batch {batch['id']} has ended and still has an owner: {_brief(batch)}"
    for name, count in seen.queues.items():
        if name not in QUEUES:
            yield f"an orphan queue: {name}"
        elif count and not name.endswith(".unreadable"):
            yield f"{count} messages are left in {name}"
    for what, rows in (("session", seen.sessions), ("lock", seen.locks)):
        for row in rows:
            yield f"an orphan {what} at the database: {row}"
    for service, code in seen.exits.items():
        if code != 0:
            yield f"{service} ended with {code} at SIGTERM"


def _brief(batch: Row) -> dict[str, Any]:
    names = ("status", "total", "completed", "failed", "cancelled", "processing", "owner", "wanted", "epoch", "claims")
    return {name: batch[name] for name in names}


def _grouped(rows: list[Row], key: str) -> dict[str, list[Row]]:
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        groups[row[key]].append(row)
    return groups


CHECKS: list[Callable[[Evidence], Iterator[str]]] = [
    _everything_has_ended,
    _counts_add_up,
    _everything_is_told_in_order,
    _events_tell_the_truth,
    _finished_videos_are_whole,
    _nothing_is_paid_twice,
    _whatever_is_paid_is_known,
    _each_charge_is_counted_once,
    _whatever_is_paid_is_charged,
    _the_limit_holds,
    _commands_are_answered,
    _nothing_is_left_lying,
]
