"""Takes the safeguards out one at a time, and sees that a test fails for each: `python -m tests.safeguards [NAME...]`.

Works on a copy; prints a table, and ends with 1 if a safeguard could be taken out unnoticed. Takes some minutes.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
_PATIENCE = 600.0


@dataclass(frozen=True)
class Safeguard:
    """A few words of code that money depends on."""

    name: str
    path: str
    sound: str
    broken: str
    tests: tuple[str, ...]
    """Some that fail without it."""


SAFEGUARDS = [
    Safeguard(
        "the epoch check of each commit",
        "storage/batches.py",
        '"WHERE id=? AND epoch=? AND sequence=?"',
        '"WHERE id=? AND (epoch=? OR TRUE) AND sequence=?"',
        ("tests/storage/test_changes.py",),
    ),
    Safeguard(
        "the intent that is recorded before the POST",
        "storage/storage.py",
        "        if not self.submissions.intend(reservation.intents):  # crash point: intent\n"
        "            self.ledger.take_back(reservation)\n            return False\n        self.jobs",
        "        self.jobs",
        ("tests/storage/test_changes.py", "tests/integration/test_crash.py"),
    ),
    Safeguard(
        "the ceiling in the statement that reserves",
        "storage/budgets.py",
        '"TRUE" if anyway else "used_micros+?<=ceiling_micros"',
        '"TRUE" if anyway else "used_micros+?<=ceiling_micros+1e15"',
        ("tests/storage/test_ledger.py",),
    ),
    Safeguard(
        "a payment that is reserved once",
        "storage/budgets.py",
        "AND NOT EXISTS (SELECT 1 FROM submissions WHERE id=?)",
        "AND ''<>?",
        ("tests/storage/test_ledger.py",),
    ),
    Safeguard(
        "the reservation that is given back",
        "storage/submissions.py",
        "            if released.charge is ChargeState.RELEASED and released.settled_by is None:",
        "            if False:",
        ("tests/storage/test_ledger.py",),
    ),
    Safeguard(
        "the budget that is opened alone",
        "storage/budgets.py",
        "                self._database.be_alone()\n                self._fill_in()",
        "                self._fill_in()",
        ("tests/storage/test_ledger_at_once.py",),
    ),
    Safeguard(
        "budgets that are changed in turn",
        "storage/ledger.py",
        'f" AND pg_advisory_xact_lock({TURN}) IS NOT NULL" if database.postgresql else ""',
        '""',
        ("tests/storage/test_ledger_at_once.py",),
    ),
    Safeguard(
        "the charge that one at a time changes",
        "storage/submissions.py",
        '        lock = "FOR UPDATE" if self._database.postgresql else ""\n        (submission,)',
        '        lock = ""\n        (submission,)',
        ("tests/storage/test_ledger_at_once.py",),
    ),
    Safeguard(
        "the fraction of a price that is rounded up",
        "actors/batch/prices.py",
        "micros = ceil(",
        "micros = int(",
        ("tests/actors/batch/test_prices.py",),
    ),
    Safeguard(
        "the listing before a second POST",
        "actors/sora/submission.py",
        "                return Unknown(failure)\n\n    def _guard",
        "                return NotPaid(SubmissionState.ABSENT, failure)\n\n    def _guard",
        ("tests/integration/test_submission.py",),
    ),
    Safeguard(
        "the proof that nothing was made",
        "actors/sora/matching.py",
        "    if not listing.complete or listing.since > intent.intended_at - BEFORE:",
        "    return None\n    if not listing.complete or listing.since > intent.intended_at - BEFORE:",
        ("tests/actors/sora/test_matching.py",),
    ),
    Safeguard(
        "absence without the operator's word",
        "actors/sora/evidence.py",
        "        if not self._whole:",
        "        if False:",
        (
            "tests/integration/test_unknown_outcomes.py::test_what_a_listing_can_not_prove_is_told_with_the_setting_that_lets_it",
        ),
    ),
    Safeguard(
        "the time by which a POST has arrived",
        "actors/sora/evidence.py",
        "        if ready_at > listing.began_at:",
        "        if ready_at > listing.began_at + 1e9:",
        ("tests/integration/test_unknown_outcomes.py::test_a_server_that_warms_up_behind_a_proxy_makes_a_video_once",),
    ),
    Safeguard(
        "a POST that timed out",
        "actors/sora/evidence.py",
        "        if _may_be_admitted(entry):",
        "        if False:",
        ("tests/integration/test_unknown_outcomes.py::test_a_post_that_timed_out_is_never_proved_absent",),
    ),
    Safeguard(
        "the POST of a sender that lives",
        "actors/sora/evidence.py",
        "        if lives:",
        "        if False:",
        (
            "tests/actors/sora/test_resolving.py",
            "tests/integration/test_unknown_outcomes.py::test_a_post_whose_sender_is_suspended_is_never_proved_absent",
        ),
    ),
    Safeguard(
        "twins: no more videos than intents",
        "actors/sora/matching.py",
        "        if not free:\n            return {}",
        "        if not free:\n            return paired",
        ("tests/actors/sora/test_matching.py",),
    ),
    Safeguard(
        "twins in flight",
        "actors/sora/matching.py",
        " or any(twin.in_flight for twin in twins)",
        "",
        ("tests/actors/sora/test_matching.py",),
    ),
    Safeguard(
        "the key's fingerprint",
        "actors/sora/evidence.py",
        "        if entry.key_fingerprint != self._key:\n            return OTHER_KEY",
        "        if False:\n            return OTHER_KEY",
        ("tests/actors/sora/test_resolving.py::test_no_listing_proves_anything_about_another_key_s_post",),
    ),
    Safeguard(
        "the window in which a POST may go out",
        "actors/sora/submission.py",
        "            if now > send_before:",
        "            if now > send_before + 1e9:",
        ("tests/integration/test_submission.py::test_a_post_whose_time_has_passed_does_not_go_out",),
    ),
    Safeguard(
        "the clock before each block of an upload",
        "actors/sora/upload.py",
        "        if self.overdue:",
        "        if False and self.overdue:",
        ("tests/actors/sora/test_upload.py",),
    ),
    Safeguard(
        "the lease that is looked at before a POST",
        "actors/sora/submission.py",
        "            if now > self._lease.trusted_until:",
        "            if now > self._lease.trusted_until + 1e9:",
        ("tests/integration/test_submission.py::test_a_post_whose_time_has_passed_does_not_go_out",),
    ),
    Safeguard(
        "one live submission a job",
        "storage/schema.py",
        "CREATE UNIQUE INDEX submissions_live ON submissions (job_id)\nWHERE",
        "CREATE INDEX submissions_live ON submissions (job_id)\nWHERE",
        ("tests/storage/test_submissions.py",),
    ),
    Safeguard(
        "the rename of a whole file",
        "storage/videos.py",
        'f"{job_id}.{epoch}{_PART}"',
        'f"{job_id}.mp4"',
        ("tests/storage/test_videos.py",),
    ),
    Safeguard(
        "a file that is never replaced",
        "storage/videos.py",
        "        if final.exists():",
        "        if False:",
        ("tests/storage/test_videos.py",),
    ),
    Safeguard(
        "the owed DELETE",
        "actors/batch/cancellation.py",
        "        storage.deletes.owe(owed)",
        "        pass",
        ("tests/actors/batch/test_operations.py", "tests/integration/test_deletes.py"),
    ),
    Safeguard(
        "the retry that takes a DELETE back",
        "actors/batch/retrying.py",
        "    withdraw_deletes(storage, batch_id, [job for job in chosen if job.id not in let_go])\n",
        "",
        ("tests/integration/test_deletes.py",),
    ),
    Safeguard(
        "the origin to which key and headers go",
        "actors/sora/route.py",
        "own = isinstance(at, str) or at.origin() == self._origin",
        "own = True",
        ("tests/actors/sora/test_route.py",),
    ),
    Safeguard(
        "the certificate that is not waited out",
        "actors/sora/route.py",
        "return Obstacle(error.host, text, passes=False)",
        "return Obstacle(error.host, text, passes=True)",
        ("tests/actors/sora/test_proxies.py",),
    ),
    Safeguard(
        "the video that a twin has under another id",
        "actors/sora/outcomes.py",
        "if inner in others}",
        "if False}",
        ("tests/actors/sora/test_resolving.py",),
    ),
    Safeguard(
        "the file id that a server would drop",
        "actors/sora/client.py",
        "if server is not None and (why := why_not_sent(server, spec, form)) is not None:",
        "if False and (why := why_not_sent(server, spec, form)) is not None:",
        ("tests/actors/sora/test_servers.py",),
    ),
    Safeguard(
        "the mark after the confirm",
        "actors/rabbitmq/publisher.py",
        "{each.batch_id: each.confirmed for each in self._cursors.values() if each.confirmed > each.marked}",
        "{each.batch_id: each.sent for each in self._cursors.values() if each.sent > each.marked}",
        ("tests/actors/rabbitmq/test_publisher.py",),
    ),
    Safeguard(
        "the inbox that knows a command again",
        "actors/batch/commands.py",
        "key.digest, at))) is not None:",
        "key.digest, at))) is not None and not key.id:",
        ("tests/actors/rabbitmq/test_handler.py",),
    ),
]


def taken_out(safeguard: Safeguard, folder: Path) -> str:
    """Take one out of a copy, and run the tests there; what they say at their end, or `` if none fails."""
    path = folder / safeguard.path
    sound = path.read_text()
    path.write_text(sound.replace(safeguard.sound, safeguard.broken))
    command = [sys.executable, "-m", "pytest", "-q", "-x", "--no-header", "-p", "no:cacheprovider", *safeguard.tests]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=_PATIENCE, check=False)
    finally:
        path.write_text(sound)
    failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return failed[0].partition(" - ")[0] if done.returncode == 1 and failed else ""


def main(names: list[str]) -> int:
    unnoticed = 0
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "project"
        shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(".*", "node_modules", "*.egg-info", "__pycache__"))
        for safeguard in SAFEGUARDS:
            if names and safeguard.name not in names:
                continue
            found = taken_out(safeguard, folder)
            unnoticed += not found
            print(f"{safeguard.name:<62} {found or 'NO TEST FAILS'}", flush=True)
    return 1 if unnoticed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
