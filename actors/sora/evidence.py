"""What the records and a listing prove about POSTs of unknown outcome. Its methods run in a transaction.

`matching` has the pure part: which listed videos are ours, and what a listing says of the others.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from actors.batch.batch_update import request_digest
from actors.errors import ErrorCode, Failure
from actors.settings import Settings
from actors.sora.matching import Held, Listing, OpenIntent, absence_disproved, pair, reused
from actors.sora.outcomes import SEND_WINDOW, Bound, NotPaid, Outcome, known, same_videos
from actors.sora.requests import VideoSpec
from storage.owners import OwnerRecord, is_dead, this_host
from storage.records import JobRecord, SubmissionRecord
from storage.states import FINAL_JOB, UNRESOLVED, SubmissionState
from storage.storage import Storage
from storage.submissions import RESTORED, Bind
from storage.urls import key_of, server_of

_NO_WHOLE = (
    "if a single store is behind this address, set SORA_LISTING=whole: then a listing can prove that nothing was made "
    "(not for replicas that each list only their own videos)"
)
_SENDER_DEAD = "its sender is dead"
_NOT_TOLD = "no answer was recorded within SORA_SUBMIT_TIMEOUT, although its sender is alive"
OTHER_KEY = "it was sent with another key, and only that key can see its video"
_Open = list[tuple[SubmissionRecord, JobRecord]]


@dataclass(frozen=True, slots=True)
class Finding:
    """What a reading of the listing says about one intent: its outcome, or why there is none yet."""

    outcome: Outcome | None
    why: str = ""
    tried: bool = False
    """It might have proved something."""
    final: bool = False
    """No later reading will say more."""
    recorded: str = ""
    """What this reading has recorded about it: `adopted` or `absent`."""


class Evidence:
    """That of one process, with its key."""

    def __init__(
        self,
        storage: Storage,
        settings: Settings,
        *,
        provider: str,
        is_sending: Callable[[SubmissionRecord], bool | None],
    ) -> None:
        """`is_sending`: whether this process is sending an intent's POST; None: another process recorded it."""
        self._storage, self._is_sending = storage, is_sending
        self._whole = settings.sora_listing == "whole"
        self._longest, self._settle = settings.sora_submit_timeout.total_seconds(), settings.sora_settle.total_seconds()
        self._server, self._key = server_of(provider), key_of(provider)
        self.stalled_until = -math.inf
        """When the server last answered again after a delayed or failed listing."""

    def is_ours(self, submission: SubmissionRecord) -> bool:
        """Whether it was sent with the key of this process: only that key can see its video."""
        return submission.key_fingerprint == self._key

    def standing(self, submission_id: str) -> tuple[SubmissionRecord, float]:
        """The submission, and the seconds until a reading may prove its absence. Writes."""
        current = self._storage.submissions.get(submission_id)
        if current.server is None:
            self._storage.submissions.fill_in()
            current = self._storage.submissions.get(submission_id)
        current = self._closed_if_over(current)  # crash point: sender dead
        return current, self.ready_at(current) - self._storage.database.now()

    def _in_flight(self, submission: SubmissionRecord) -> bool:
        """Whether its own answer may still come. For a sender on another machine: until its time is up."""
        if submission.closed_at is not None:
            return False
        sending = self._is_sending(submission)
        if sending is None:
            sender = self._neighbour(submission)
            sending = sender is None or not is_dead(sender)
        return sending and self._arrives_until(submission) > self._storage.database.now()

    def _closed_if_over(self, submission: SubmissionRecord) -> SubmissionRecord:
        """The submission; if its own answer is no longer waited for, that and the reason are recorded first.

        A live sender may be suspended: its connection is then open, and the server may still accept the POST.
        """
        if submission.state is not SubmissionState.INTENDED or self._in_flight(submission):
            return submission
        lives = self._is_sending(submission)
        if lives is None:
            sender = self._neighbour(submission)
            lives = self._storage.owners.alive(submission.sender) if sender is None else not is_dead(sender)
        if lives:
            self._storage.submissions.unanswered(submission.id, _NOT_TOLD, timed_out=True)
        else:
            self._storage.submissions.settle(submission.id, SubmissionState.UNKNOWN, _SENDER_DEAD)
        return self._storage.submissions.get(submission.id)

    def _neighbour(self, submission: SubmissionRecord) -> OwnerRecord | None:
        """Its sender, if on this host; elsewhere only its lease says whether it lives."""
        neighbours = self._storage.owners.neighbours(*this_host())
        return next((owner for owner in neighbours if owner.id == submission.sender), None)

    def _arrives_until(self, submission: SubmissionRecord) -> float:
        """When its POST has normally arrived and is listed, by the database's clock."""
        return submission.intended_at + SEND_WINDOW + self._longest + self._settle

    def ready_at(self, submission: SubmissionRecord) -> float:
        """When a reading can first prove its absence: POSTs that a server held back arrive once it answers again."""
        return max(self._arrives_until(submission), self.stalled_until + self._settle)

    def _open(self, asked: Mapping[str, SubmissionRecord], since: float) -> dict[str, _Open]:
        """The open intents of the prompts in question, by prompt: with any key, with their jobs, oldest first."""
        entries = self._storage.submissions.unresolved(self._server, since, asked)
        jobs = self._storage.jobs.by_id([entry.job_id for entry in entries])
        by_prompt: dict[str, _Open] = {}
        for entry in entries:
            if (job := jobs.get(entry.job_id)) is not None:
                by_prompt.setdefault(job.prompt, []).append((entry, job))
        return {
            prompt: [(self._closed_if_over(entry), job) for entry, job in found]
            for prompt, found in by_prompt.items()
            if any(entry.id in asked for entry, _ in found)
        }

    def match(self, asked: Mapping[str, SubmissionRecord], listing: Listing) -> dict[str, Finding]:
        """In one transaction: adopt our videos, and prove absence where possible."""
        by_prompt = self._open(asked, listing.since)
        held = self._held([video.id for video in listing.videos if video.id])
        again = reused(listing, held)
        findings: dict[str, Finding] = {}
        for found in by_prompt.values():
            adopted = self._adopt(found, listing, held)  # crash point: match
            open_ones = [entry for entry, _ in found if entry.id not in adopted]
            ready_at = max(map(self.ready_at, open_ones), default=-math.inf)
            for entry, job in found:
                if entry.id in adopted:
                    findings[entry.id] = Finding(Bound(adopted[entry.id]), recorded="adopted")
                elif entry.id in asked:
                    findings[entry.id] = self._proof(entry, job, ready_at, listing, held, again)
        return findings | {intent_id: self._elsewhere(intent_id) for intent_id in asked if intent_id not in findings}

    def _elsewhere(self, intent_id: str) -> Finding:
        """The finding for an intent that is not open here."""
        entry = self._storage.submissions.get(intent_id)
        if entry.state not in UNRESOLVED:
            return Finding(known(entry))
        return Finding(None, f"it was sent to {entry.server}, and only that server can tell", final=True)

    def _adopt(self, found: _Open, listing: Listing, held: dict[str, Held]) -> dict[str, str]:
        """Bind the listed videos that are ours; those of another key are left to its own processes."""
        intents = [self._as_intent(entry, job) for entry, job in found]
        entries = {entry.id: (entry, job) for entry, job in found}
        possible = [each for each in intents if each.in_flight or entries[each.id][0].key_fingerprint == self._key]
        adopted = {
            intent_id: remote_id
            for intent_id, remote_id in pair(listing, held, possible).items()
            if self._storage.submissions.bind(intent_id, remote_id, adopted=True) is Bind.BOUND
        }
        for intent_id, remote_id in adopted.items():
            held[remote_id] = self._as_held(self._storage.submissions.get(intent_id), entries[intent_id][1])
        return adopted

    def _proof(
        self,
        entry: SubmissionRecord,
        job: JobRecord,
        ready_at: float,
        listing: Listing,
        held: dict[str, Held],
        again: str | None,
    ) -> Finding:
        """What a listing proves about an intent.

        `ready_at`: when the POSTs of all open intents with its prompt must have arrived; `again`: a listed id that the
        server reused.
        """
        if ready_at > listing.began_at:
            late = self._arrives_until(entry) + self._longest < listing.began_at
            return Finding(None, "another POST with the same prompt may have made the listed video", final=late)
        if (why := self.why_no_proof(entry)) is not None:
            return Finding(None, why, final=True)
        if again is not None:
            why = f"the server seems to have reused the id {again}"
        else:
            made_any = self._storage.submissions.made_any(self._server)
            why = absence_disproved(listing, self._as_intent(entry, job), held, made_any=made_any)
        if not self._whole:
            why = why or f"the server's listing does not show it, which proves nothing: {_NO_WHOLE}"
        if why is not None:
            return Finding(None, why, tried=True)
        failure = Failure(ErrorCode.NETWORK, "the server's listing shows that nothing was made")
        self._storage.submissions.settle(entry.id, SubmissionState.ABSENT, failure.message)
        return Finding(NotPaid(SubmissionState.ABSENT, failure), recorded="absent")

    def why_no_proof(self, entry: SubmissionRecord) -> str | None:
        """Why no listing proves that nothing was made for a submission; None: one may."""
        if entry.key_fingerprint != self._key:
            return OTHER_KEY
        if entry.note == RESTORED:
            return f"{RESTORED}, and it may have been submitted after that backup was made"
        if _may_be_admitted(entry):
            return "its POST timed out (SORA_SUBMIT_TIMEOUT), and the server may still accept it"
        if entry.state is SubmissionState.CLASHED:
            return entry.note or "its id belongs to another video"
        if self._storage.servers.reuses_ids(self._server):
            return "this server reuses ids: its listing proves nothing"
        return None

    def _as_intent(self, entry: SubmissionRecord, job: JobRecord) -> OpenIntent:
        spec = VideoSpec(job.prompt, job.model, job.duration, job.size, seed=job.seed)
        until = self._arrives_until(entry)
        return OpenIntent(entry.id, spec, entry.intended_at, until, in_flight=self._in_flight(entry))

    def _held(self, listed: list[str]) -> dict[str, Held]:
        """The listed ids that submissions hold."""
        holders = same_videos(self._storage, self._server, listed)
        jobs = self._storage.jobs.by_id({entry.job_id for entry in holders.values()})
        return {remote_id: self._as_held(entry, jobs.get(entry.job_id)) for remote_id, entry in holders.items()}

    def _as_held(self, entry: SubmissionRecord, job: JobRecord | None) -> Held:
        told_at = None if entry.adopted else entry.closed_at
        ended = job is None or job.status in FINAL_JOB
        return Held(
            ours=entry.key_fingerprint == self._key,
            made_until=self._arrives_until(entry) if told_at is None else told_at,
            # A retry may have changed its job's request.
            prompt=job.prompt if job is not None and request_digest(job) == entry.digest else None,
            ended=ended,
            doubtful=entry.adopted and _may_be_admitted(entry),
        )


def _may_be_admitted(entry: SubmissionRecord) -> bool:
    """Whether its POST may still be accepted at any time: as far as is known, it timed out."""
    if entry.timed_out is not None or entry.state is SubmissionState.INTENDED:
        return bool(entry.timed_out)
    # The previous version did not record it. A note of a dead sender means that its death closed the connection.
    return entry.closed_at is not None and entry.note != _SENDER_DEAD
