"""`sora-batch migrate`, and `serve --no-migrate`."""

import json
from pathlib import Path

import pytest

from actors.cli.database import require_schema
from actors.errors import DatabaseUnusable
from actors.settings import load_settings
from storage.database import Database
from storage.schema import ADDITIONS, STEPS


def without_the_newest(folder: Path) -> None:
    database = Database(f"sqlite:///{folder}/sora-batch.db")
    database.open()
    with database.connection():
        database.execute("DELETE FROM schema_addition WHERE name=?", (max(STEPS[ADDITIONS]),))
    database.close()


def test_a_new_database_is_made_and_told(call, home):
    done = call("migrate")
    assert done.exit_code == 0
    names = [name for steps in STEPS.values() for name in sorted(steps)]
    assert done.stdout.strip().replace("\n", " ") == f"database {home}/sora-batch.db: applied {', '.join(names)}"
    assert call("migrate").stdout == f"database {home}/sora-batch.db: the schema is up to date\n"


def test_json_tells_the_same(call, home):
    told = json.loads(call("migrate", "--json").stdout)
    assert told["database"] == f"{home}/sora-batch.db"
    assert {"0001_initial", "0005_servers"} <= set(told["applied"])
    assert told["restored"] is None
    again = json.loads(call("migrate", "--restored", "--json").stdout)
    assert (again["applied"], again["restored"]) == ([], {"batches": 0, "unknown": 0, "attached": 0})


def test_after_a_restored_backup_each_unfinished_video_is_counted(call, home):
    call("create", "-p", "A lake", "-p", "A sea", "--id", "nature")
    refused = call("migrate", "--restored")
    assert refused.exit_code == 2
    assert "OPENAI_BASE_URL" in refused.stderr
    done = call("migrate", "--restored", "--simulate")
    assert done.exit_code == 0
    said = " ".join(done.stdout.split())
    assert "restored: 1 unfinished batch: the outcome of 2 videos is unknown and 0 videos will be fetched by id" in said
    assert {job["status"] for job in json.loads(call("status", "nature", "--json").stdout)["jobs"]} == {"submitting"}


def test_serve_without_migrating_refuses_what_is_not_there_and_does_not_make_it(call, home):
    done = call("serve", "--no-migrate", "--simulate")
    assert done.exit_code == 2
    assert f"the database {home}/sora-batch.db does not exist: run sora-batch migrate first" in done.stderr
    assert not (home / "sora-batch.db").exists()


def test_serve_without_migrating_refuses_an_older_schema_and_leaves_it(call, home):
    without_the_newest(home)
    done = call("serve", "--no-migrate", "--simulate")
    assert done.exit_code == 2
    newest = max(STEPS[ADDITIONS])
    assert f"has an older schema than this program, without {newest}: run sora-batch migrate first" in done.stderr
    with pytest.raises(DatabaseUnusable):  # still
        require_schema(load_settings())


def test_serve_without_migrating_refuses_an_empty_database(call, home):
    (home / "sora-batch.db").touch()
    done = call("serve", "--no-migrate", "--simulate")
    assert done.exit_code == 2
    assert f"the database {home}/sora-batch.db has no schema yet: run sora-batch migrate first" in done.stderr


def test_a_database_of_this_version_is_taken(call, home):
    call("migrate")
    require_schema(load_settings())
