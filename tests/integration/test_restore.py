"""A backup of the database is restored: what was made after it is found again, and never paid for a second time."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from actors.batch.restoring import Restored, doubt_unfinished
from actors.errors import Conflict
from actors.service import BatchService
from storage.database import Database
from storage.owners import this_process
from storage.storage import Storage
from tests.integration.support import PATIENCE, ROOT, check_files, check_paid_once, numbered, until, videos
from tests.provider.client import Provider

pytestmark = pytest.mark.integration

Start = Callable[..., BatchService]
BATCH = 4


def back_up(folder: Path) -> Path:
    """As docs/operations.md says: the file and its log, in one state."""
    copy = folder / "backup.db"
    with closing(sqlite3.connect(folder / "batches.db")) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
    return copy


def restore(copy: Path, options: dict[str, Any]) -> dict[str, Any]:
    """What `migrate --restored` tells of it."""
    place = copy.with_name("batches.db")
    for suffix in ("", "-wal", "-shm"):
        place.with_name(place.name + suffix).unlink(missing_ok=True)
    shutil.copy(copy, place)
    with closing(sqlite3.connect(place)) as old, old:  # made an hour ago: whoever used it then has no lease any more
        old.execute("UPDATE owners SET lease_until=lease_until-3600")
    environment = {name.upper(): str(value) for name, value in options.items()}
    done = subprocess.run(
        [sys.executable, "-m", "actors.cli", "migrate", "--restored", "--json"], cwd=copy.parent, check=False,
        env=environment | {"PATH": os.defpath, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout)["restored"])


@pytest.mark.parametrize("moment", ["batch.created", "batch.started", "job.submitted", "job.completed"])
def test_what_was_made_after_the_backup_is_adopted(
    start_service: Start, options: Callable[..., dict[str, Any]], provider: Provider, tmp_path: Path, moment: str
) -> None:
    service = start_service()
    batch = service.create_batch(videos(*numbered(BATCH), concurrency=2, id="nature"))
    if moment == "batch.created":
        copy = back_up(tmp_path)
    running = service.process_batch("nature")
    if moment != "batch.created":
        until(lambda: moment in {event.name for event in service.history("nature")})
        copy = back_up(tmp_path)
    assert running.result(PATIENCE).status == "completed"
    service.close()
    told = restore(copy, options())
    assert told["batches"] == 1
    assert told["unknown"] + told["attached"] <= BATCH
    again = start_service()
    stands = again.get_batch_status("nature")
    assert "pending" not in {job.status for job in stands.jobs}
    after = again.process_batch(batch.id).result(PATIENCE)
    assert after.status == "completed"
    check_files(after, provider)
    check_paid_once(provider)
    assert set(provider.summary()["posts_per_prompt"].values()) == {1}


def test_what_was_not_made_is_left_to_a_person(
    start_service: Start, options: Callable[..., dict[str, Any]], provider: Provider, tmp_path: Path
) -> None:
    """Whoever restores says nothing about paying, also where unknown ones are otherwise submitted again."""
    service = start_service()
    service.create_batch(videos(*numbered(2), id="nature"))
    service.close()
    copy = back_up(tmp_path)
    assert restore(copy, options()) == {"batches": 1, "unknown": 2, "attached": 0}
    again = start_service(sora_unknown_submission="resubmit")
    again.serve()  # it was not started in the backup, and may have been since
    until(lambda: again.get_batch_status("nature").finished)
    failed = again.get_batch_status("nature")
    assert [job.error.code for job in failed.jobs if job.error] == ["submission_unknown"] * 2
    assert all("restored from a backup" in job.error.message for job in failed.jobs if job.error)
    assert provider.summary()["posts_per_prompt"] == {}
    assert again.retry_batch("nature", pay_again=True).result(PATIENCE).status == "completed"
    check_paid_once(provider)


def test_a_database_that_is_in_use_is_not_doubted(database: Database) -> None:
    """Of a process of this host that died it is known at once; one elsewhere counts until its lease runs out."""
    storage = Storage(database)
    other = this_process()._replace(host="elsewhere", pid=17)
    dead = this_process()._replace(id="dead", pid=2**22 + 1)
    with database.connection(), database.begin():
        storage.owners.renew(dead, 60)
        assert doubt_unfinished(storage, str, paid_attempts=1) == Restored()
        storage.owners.renew(other, 60)
        with pytest.raises(Conflict, match=r"use this database: elsewhere \(pid 17\); stop them first.* in (60|59) s"):
            doubt_unfinished(storage, str, paid_attempts=1)
