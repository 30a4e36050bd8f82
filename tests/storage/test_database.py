"""Opening a database: by its URL, migrated once, and with a sentence for whatever is wrong with it."""

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import peewee
import psycopg
import pytest

from storage import database as database_module
from storage.database import Database
from storage.failures import DatabaseError, is_outage
from storage.migrations import check_schema
from storage.schema import INITIAL, STEPS
from storage.states import LIVE_SUBMISSION
from storage.storage import Storage
from storage.timing import boottime
from tests.builders import a_batch, put
from tests.servers.pgbouncer import PgBouncer
from tests.servers.postgresql import PostgreSQL

MIGRATED = [(name,) for name in STEPS[INITIAL]]
ROOT = Path(__file__).parents[2]
LIMIT = "idle_in_transaction_session_timeout"
OPEN = "import sys; from storage.database import Database; d = Database(sys.argv[1]); d.open(); d.close()"


def sqlite_at(path):
    return Database(f"sqlite:///{path}")


def refused(database):
    with pytest.raises(DatabaseError) as caught:
        database.open()
    database.close()
    return str(caught.value)


def test_making_a_database_connects_to_nothing(tmp_path):
    sqlite_at(tmp_path / "new.db")
    Database("postgresql://nobody@nowhere.invalid/none")
    assert list(tmp_path.iterdir()) == []


def test_opening_again_changes_nothing(database_url, storage):
    storage.batches.add(a_batch())
    again = Database(database_url)
    again.open()
    again.open()
    again.close()
    assert storage.batches.get("nature") == a_batch()
    assert storage.database.execute("SELECT name FROM schema_migration").fetchall() == MIGRATED


def test_two_processes_that_open_a_new_database_at_once_both_can(database_url):
    starting = [
        subprocess.Popen([sys.executable, "-c", OPEN, database_url], stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    errors = [process.communicate(timeout=60)[1] for process in starting]
    assert [process.returncode for process in starting] == [0, 0], errors


def test_a_database_of_a_newer_program_is_refused_with_the_way_out(database_url, storage):
    storage.database.execute("INSERT INTO schema_migration (name, applied) VALUES ('0999_future', '2030-01-01')")
    text = refused(Database(database_url))
    assert "is newer than this program (it has 0999_future); upgrade sora-batch" in text
    assert Database(database_url).place in text


def test_a_database_with_the_additions_of_a_newer_program_is_used(database_url, storage):
    storage.database.execute("INSERT INTO schema_addition (name, applied) VALUES ('0999_future', '2030-01-01')")
    storage.database.execute("ALTER TABLE jobs ADD COLUMN of_the_future TEXT")
    for lacking in (False, True):
        if lacking:  # an addition of ours that was not applied is
            storage.database.execute("DELETE FROM schema_addition WHERE name='0009_requests'")
            for table, column in (
                ("batches", "budget"),
                ("jobs", "options"),
                ("jobs", "made"),
                ("submissions", "told"),
            ):
                storage.database.execute(f"ALTER TABLE {table} DROP COLUMN {column}")
            storage.database.execute("DROP TABLE job_files")
        database = Database(database_url)
        database.open()
        with database.connection():
            put(Storage(database), a_batch(f"batch{lacking}"))
        database.close()


def test_time_is_the_databases_in_seconds(storage):
    first, second = storage.database.now(), storage.database.now()
    assert 1_700_000_000 < first <= second < first + 60


def test_the_states_that_live_are_those_of_the_databases_index(database):
    with database.connection():
        sql = "SELECT sql FROM sqlite_master" if database.path else "SELECT indexdef FROM pg_indexes"
        column = "name" if database.path else "indexname"
        (index,) = database.execute(f"{sql} WHERE {column}='submissions_live'").fetchone()
    assert "UNIQUE" in index
    assert {word for word in index.replace('"', "'").split("'") if word in LIVE_SUBMISSION} == LIVE_SUBMISSION


def test_a_commit_is_on_the_disk_when_it_returns(database):
    with database.connection():
        if database.path:
            assert database.execute("PRAGMA synchronous").fetchone()[0] == 2
            assert database.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
            assert database.execute("PRAGMA foreign_keys").fetchone()[0] == 1
        else:
            assert database.execute("SHOW synchronous_commit").fetchone()[0] == "on"


def test_a_transaction_that_fails_leaves_nothing(storage):
    def fail():
        with storage.database.begin():
            storage.batches.add(a_batch())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert storage.batches.get("nature") is None


def test_every_thread_can_read(database):
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(database.read(lambda: database.now() > 0))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 8


# --- what can be wrong with it


def test_a_missing_folder_is_named(tmp_path):
    text = refused(sqlite_at(tmp_path / "gone" / "x.db"))
    assert f"{tmp_path}/gone/x.db" in text
    assert f"the folder {tmp_path}/gone does not exist" in text


def test_a_file_that_is_no_database_is_named_and_left_alone(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_bytes(b"these are my notes, and not a database\n" * 100)
    text = refused(sqlite_at(path))
    assert f"the database {path} can't be used: " in text
    assert "not a SQLite database: restore it, or set DATABASE_URL to another file" in text
    assert path.read_bytes().startswith(b"these are my notes")


def test_a_damaged_database_is_named(tmp_path):
    database = sqlite_at(tmp_path / "x.db")
    database.open()
    database.close()
    data = (tmp_path / "x.db").read_bytes()
    (tmp_path / "x.db").write_bytes(data[:100] + b"\xff" * (len(data) - 100))
    assert "the file is damaged" in refused(sqlite_at(tmp_path / "x.db"))


def test_a_database_that_another_program_holds_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(database_module, "BUSY_SECONDS", 0.02)
    holder = sqlite3.connect(tmp_path / "x.db", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    assert "another program has locked it; wait, or stop that program" in refused(sqlite_at(tmp_path / "x.db"))
    holder.close()


@pytest.mark.parametrize(
    ("signals", "words"),
    [
        ([], "has locked it; wait, or stop that process"),
        ([signal.SIGSTOP], "has locked it and is suspended; continue it with kill -CONT {pid}, or end it"),
    ],
    ids=["busy", "suspended"],
)
def test_the_process_that_holds_a_database_is_named(tmp_path, monkeypatch, signals, words):
    monkeypatch.setattr(database_module, "BUSY_SECONDS", 0.02)
    database = sqlite_at(tmp_path / "x.db")
    database.open()
    hold = (
        f"import sqlite3, sys; c = sqlite3.connect({str(tmp_path / 'x.db')!r}); c.execute('BEGIN IMMEDIATE'); "
        "print(flush=True); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        try:
            holder.stdout.readline()
            for each in signals:
                os.kill(holder.pid, each)
                os.waitid(os.P_PID, holder.pid, os.WSTOPPED)
            with pytest.raises(peewee.OperationalError) as caught, database.connection(), database.begin():
                pass
            text = str(database.explained(caught.value))
        finally:
            holder.kill()
    database.close()
    name = Path(sys.executable).name[:15]
    assert text.endswith(f"database is locked; process {holder.pid} ({name}) {words.format(pid=holder.pid)}")


@pytest.mark.parametrize("url", ["mysql://u:secret@h/n", "sqlite://x.db", "x.db", ""])
def test_an_address_of_another_kind_is_refused_with_the_kinds_there_are(url):
    with pytest.raises(DatabaseError, match="expected sqlite:///FILE") as caught:
        Database(url)
    assert "secret" not in str(caught.value)


def test_an_address_of_another_kind_is_told_with_its_kind_and_host():
    with pytest.raises(DatabaseError, match=r"DATABASE_URL='mysql://h/n': expected"):
        Database("mysql://user:secret@h/n")


@pytest.mark.parametrize(
    ("url", "way_out"),
    [("postgresql://user:secret@[::1/n", "Invalid IPv6 URL"), ("postgresql://user:se@cret@h/n", "write @ as %40")],
)
def test_an_address_that_is_none_is_refused_without_its_password(url, way_out):
    with pytest.raises(DatabaseError, match="expected postgresql://USER:PASSWORD@HOST/NAME") as caught:
        Database(url)
    assert way_out in str(caught.value)
    assert "cret" not in str(caught.value)


def test_a_password_that_is_written_wrong_is_not_shown():
    assert 'invalid percent-encoded token: "***"' in refused(Database("postgresql://user:se%cret@127.0.0.1:1/name"))


def test_a_server_that_is_not_there_is_named_without_the_password():
    text = refused(Database("postgresql://user:secret@127.0.0.1:1/name"))
    assert "the database postgresql://127.0.0.1:1/name can't be used" in text
    assert "secret" not in text
    assert "check DATABASE_URL" in text


def test_reading_from_what_is_away_is_explained(tmp_path):
    database = sqlite_at(tmp_path / "x.db")
    with pytest.raises(DatabaseError, match="no such table: batches"):
        database.read(lambda: database.execute("SELECT * FROM batches"))
    database.close()


# --- outages


@pytest.mark.parametrize(
    ("error", "outage"),
    [
        (peewee.OperationalError("database is locked"), True),
        (peewee.OperationalError("database or disk is full"), True),
        (peewee.OperationalError("server closed the connection unexpectedly"), True),
        (peewee.InterfaceError("connection already closed"), True),
        (peewee.IntegrityError("UNIQUE constraint failed: jobs.id"), False),
        (peewee.ProgrammingError("syntax error"), False),
        (ValueError("database is locked"), False),
    ],
    ids=str,
)
def test_an_outage_is_what_can_pass(error, outage):
    assert is_outage(error) is outage


@pytest.mark.parametrize(
    ("statement", "outage"),
    [("SELECT 1 FROM nowhere", False), ("INSERT INTO owners (id) VALUES ('a')", False)],
)
def test_our_own_mistakes_are_no_outage(storage, statement, outage):
    with pytest.raises(peewee.DatabaseError) as caught:
        storage.database.execute(statement)
    assert is_outage(caught.value) is outage


@pytest.mark.parametrize(
    ("error", "outage"),
    [
        (psycopg.errors.AdminShutdown("x"), True),
        (psycopg.errors.DeadlockDetected("x"), True),
        (psycopg.errors.TooManyConnections("x"), True),
        (psycopg.errors.SerializationFailure("x"), True),
        (psycopg.errors.UniqueViolation("x"), False),
        (psycopg.errors.UndefinedTable("x"), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_postgresql_names_its_outages_by_their_class(error, outage):
    wrapped = peewee.OperationalError("x")
    wrapped.__cause__ = error
    assert is_outage(wrapped) is outage


@pytest.mark.integration
def test_a_reader_finds_a_server_again_that_was_started_anew():
    with PostgreSQL() as server:
        database = Database(server.url(server.create_database()))
        database.open()
        before = database.read(database.now)
        server.restart()
        assert database.read(database.now) >= before
        server.stop()
        with pytest.raises(DatabaseError, match="can't be used"):
            database.read(database.now)
        database.close()


def test_what_is_recorded_has_the_databases_time_whatever_the_clock_says(database, database_url, monkeypatch):
    again = Database(database_url)  # there is nothing to migrate any more
    again.open()
    monkeypatch.setattr("time.time", lambda: 0.0)
    with database.connection():
        for each in (database, again):
            assert abs(each.time() - database.now()) < 5
    again.close()


def test_the_databases_time_goes_on_while_the_machine_is_suspended(database, monkeypatch):
    before, clock = database.time(), boottime
    monkeypatch.setattr("storage.database.boottime", lambda: clock() + 8 * 3600)
    assert 8 * 3600 <= database.time() - before < 8 * 3600 + 5


def test_a_postgresql_host_that_says_nothing_any_more_is_away_before_long():
    given = Database("postgresql://user:secret@host/name").peewee.connect_params
    assert given["connect_timeout"] == 10
    assert given["tcp_user_timeout"] == 20_000
    assert given["keepalives_idle"] + given["keepalives_count"] * given["keepalives_interval"] <= 30


def test_what_a_url_says_of_that_holds():
    given = Database("postgresql://user:secret@host/name?connect_timeout=3&sslmode=prefer").peewee.connect_params
    assert "connect_timeout" not in given
    assert given["tcp_user_timeout"] == 20_000


# --- PostgreSQL's options, and poolers


@pytest.fixture
def shown(postgresql):
    """What a session of ours has set, by a URL with this at its end."""
    name = postgresql.create_database()

    def shown(setting, query=""):
        database = Database(postgresql.url(name) + query)
        found = database.read(lambda: database.execute(f"SHOW {setting}").fetchone()[0])
        database.close()
        return found

    yield shown
    postgresql.drop_database(name)


@pytest.mark.integration
def test_the_options_of_a_url_hold_and_ours_are_added(shown):
    query = "?options=-csearch_path%3Dsora%20-cstatement_timeout%3D7s"
    assert [shown(each, query) for each in ("search_path", "statement_timeout", LIMIT)] == ["sora", "7s", "5s"]
    assert shown(LIMIT, f"?options=-c{LIMIT}%3D9s") == "9s"


@pytest.mark.integration
def test_the_options_of_the_environment_hold_too(shown, monkeypatch):
    monkeypatch.setenv("PGOPTIONS", "-c statement_timeout=8s")
    assert [shown(each) for each in ("statement_timeout", LIMIT)] == ["8s", "5s"]
    monkeypatch.setenv("PGOPTIONS", f"-c {LIMIT}=9s")
    assert shown(LIMIT) == "9s"


@pytest.mark.integration
def test_a_postgresql_database_without_an_encoding_is_one_like_others(postgresql):
    """As in a cluster that was made without a locale."""
    name = postgresql.create_database("SQL_ASCII")
    for _ in range(2):
        database = Database(postgresql.url(name))
        database.open()
        check_schema(database)
        with database.connection(), database.begin():
            Storage(database).batches.add(a_batch(name="Ein Fluß"))
        with database.connection():
            assert Storage(database).batches.get("nature") == a_batch(name="Ein Fluß")
        database.close()
    postgresql.drop_database(name)


@pytest.mark.integration
def test_the_tables_are_made_in_the_schema_that_the_url_names(postgresql):
    url = postgresql.url(postgresql.create_database())
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA sora")
        for _ in range(2):  # the second one finds them
            database = Database(f"{url}?options=-csearch_path%3Dsora")
            database.open()
            database.close()
        found = connection.execute("SELECT DISTINCT schemaname FROM pg_tables WHERE tablename IN ('batches', 'jobs')")
        assert found.fetchall() == [("sora",)]


@pytest.mark.integration
def test_a_pooler_of_sessions_is_supported(postgresql):
    url = postgresql.url(postgresql.create_database())
    with PgBouncer(url, pool_mode="session", default_pool_size="3") as pooler:
        for _ in range(3):  # psycopg prepares a statement that comes often; the next session knows nothing of it
            database = Database(pooler.url)
            database.open()
            for _ in range(10):
                with database.connection(), database.begin():
                    assert database.execute(f"SHOW {LIMIT}").fetchone()[0] == "5s"
                    assert database.execute("SELECT id FROM batches WHERE id=?", ("x",)).fetchall() == []
            assert database.close()


@pytest.mark.integration
@pytest.mark.parametrize("settings", [{}, {"server_round_robin": "1"}], ids=["", "round robin"])
@pytest.mark.parametrize("mode", ["transaction", "statement"])
def test_a_pooler_that_keeps_no_session_is_refused_by_name(postgresql, mode, settings):
    url = postgresql.url(postgresql.create_database())
    with PgBouncer(url, pool_mode=mode, **settings) as pooler:
        text = refused(Database(pooler.url))
    assert text.startswith("DATABASE_URL leads to a connection pooler in transaction or statement mode")
    assert text.endswith("set pool_mode = session for this database, or connect to PostgreSQL directly")


@pytest.mark.integration
def test_a_pooler_that_takes_no_options_is_told_with_the_way_out(postgresql):
    with PgBouncer(postgresql.url(postgresql.create_database()), pool_mode="session") as pooler:
        text = refused(Database(f"{pooler.url}?options=-csearch_path%3Dsora"))
    assert "ALTER ROLE ... SET" in text


@pytest.mark.integration
def test_a_pooler_with_a_single_connection_is_refused_soon(postgresql, monkeypatch):
    monkeypatch.setattr("storage.postgresql._ANSWER_SECONDS", 0.2)
    url = postgresql.url(postgresql.create_database())
    with PgBouncer(url, pool_mode="session", default_pool_size="1") as pooler:
        text = refused(Database(pooler.url))
    assert text.startswith("DATABASE_URL leads to a connection pooler that gave no second connection")
    assert "raise its pool size" in text


WITHOUT_DRIVER = """
import sys
sys.modules["psycopg"] = None
from actors.cli.app import main
main(sys.argv[1:])
"""


@pytest.mark.parametrize(("command", "code"), [("list", 2), ("doctor", 1)])
def test_without_the_driver_of_postgresql_one_sentence_says_what_to_install(tmp_path, command, code):
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_DRIVER, command],
        env={"PATH": os.defpath, "DATABASE_URL": "postgresql://me:secret@127.0.0.1:1/db", "PYTHONPATH": str(ROOT)},
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    said = " ".join((done.stdout + done.stderr).split())
    assert "DATABASE_URL='postgresql://127.0.0.1:1/db' needs the PostgreSQL driver" in said
    assert "pip install 'sora-batch[postgresql]'" in said
    assert "unexpected" not in said
    assert "secret" not in said
    if command == "doctor":
        assert "VIDEO_DIR" in said
        assert "RabbitMQ" in said
