"""Additions to the schema: the version before opens, and uses, a database that has them."""

from storage.database import Database
from storage.migrations import apply, check_schema
from storage.schema import ADDITIONS, INITIAL, STEPS
from storage.storage import Storage
from tests.builders import a_batch, put


def columns(database, table):
    return {column.name for column in database.peewee.get_columns(table)}


def test_the_history_that_the_version_before_looks_into_holds_what_it_knows(storage):
    noted = storage.database.execute("SELECT name FROM schema_migration").fetchall()
    assert {name for (name,) in noted} == {"0001_initial", "0002_publication", "0003_inbox", "0004_status"}
    added = storage.database.execute("SELECT name FROM schema_addition").fetchall()
    assert {name for (name,) in added} == set(STEPS[ADDITIONS])


def test_additions_fill_in_what_older_rows_say(database_url):
    database = Database(database_url)
    with database.connection():
        for name in STEPS[INITIAL]:
            apply(database, INITIAL, name)
        assert "server" not in columns(database, "batches")
        database.execute(
            "INSERT INTO batches (id, metadata, status, concurrency, timeout, digest, provider, total, completed, failed,"
            " cancelled, processing, sequence, epoch, wanted, claims, spent, created_at, updated_at) VALUES"
            " ('old', '{}', 'pending', 1, 0, 'd', 'http://user:***@Host:80/v1#0123456789ab', 1, 0, 0, 0, 0, 1, 1, FALSE, 0, 0, 0, 0)"
        )
        database.execute(
            "INSERT INTO submissions (id, job_id, batch_id, attempt, digest, provider, sender, intended_at, state, adopted)"
            " VALUES ('s', 'old-01', 'old', 1, 'd', 'simulator', 'me', 0, 'bound', FALSE)"
        )
    database.open()
    with database.connection():
        assert database.execute("SELECT server FROM batches").fetchall() == [("http://host/v1",)]
        found = database.execute("SELECT server, key_fingerprint FROM submissions").fetchall()
        assert found == [("simulator", "")]
    database.close()


def test_no_step_is_noted_in_both_histories():
    assert STEPS[INITIAL].keys().isdisjoint(STEPS[ADDITIONS])


def test_this_version_works_beside_the_additions_of_a_later_one(database_url):
    later = Database(database_url)
    later.open()
    with later.connection():
        later.execute("ALTER TABLE batches ADD COLUMN later_column TEXT")
        later.execute("CREATE TABLE later_table (id VARCHAR(10) PRIMARY KEY)")
        later.execute("INSERT INTO schema_addition (name, applied) VALUES ('9999_later', '2030-01-01')")
    later.close()
    database = Database(database_url)
    assert database.open() == []
    check_schema(database)
    with database.connection():
        storage = Storage(database)
        put(storage, a_batch(total=2))
        assert storage.batches.get("nature") == a_batch(total=2)
    database.close()


def test_what_is_applied_is_told(database_url):
    database = Database(database_url)
    applied = database.open()
    assert applied == [name for steps in STEPS.values() for name in sorted(steps)]
    assert database.open() == []
    database.close()
