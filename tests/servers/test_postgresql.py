"""The tests' own PostgreSQL: durable, on loopback, on a port that outlives it."""

from collections.abc import Iterator

import psycopg
import pytest

from tests.servers.postgresql import PostgreSQL

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def server() -> Iterator[PostgreSQL]:
    with PostgreSQL() as server:
        yield server


def test_what_was_committed_outlives_a_kill(server: PostgreSQL) -> None:
    url = server.url(server.create_database())
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS one")
    with psycopg.connect(url) as connection:
        server.kill()
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(url)

    server.restart()

    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT one FROM kept").fetchall() == [(1,)]


def test_a_kill_takes_a_backend_with_it_that_computes(server: PostgreSQL) -> None:
    with psycopg.connect(server.url()) as connection:
        connection.pgconn.send_query(b"SELECT count(*) FROM generate_series(1, 1000000000)")
        server.kill()
        connection.pgconn.get_result()
        assert connection.pgconn.status == psycopg.pq.ConnStatus.BAD
    server.restart()


def test_every_database_is_new_and_empty(server: PostgreSQL) -> None:
    first, second = server.create_database(), server.create_database()
    assert first != second
    with psycopg.connect(server.url(first)) as connection:
        tables = connection.execute("SELECT FROM pg_tables WHERE schemaname = 'public'")
        assert tables.fetchall() == []
        server.drop_database(second)
        names = connection.execute("SELECT datname FROM pg_database WHERE datname LIKE 'test%'").fetchall()
    assert (second,) not in names


@pytest.mark.parametrize(
    ("setting", "value"),
    [("synchronous_commit", "on"), ("fsync", "on"), ("listen_addresses", "127.0.0.1")],
)
def test_it_is_as_durable_as_a_real_one_and_only_here(server: PostgreSQL, setting: str, value: str) -> None:
    with psycopg.connect(server.url()) as connection:
        assert connection.execute("SELECT current_setting(%s)", [setting]).fetchone() == (value,)


def test_nobody_gets_in_without_its_password(server: PostgreSQL) -> None:
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(host="127.0.0.1", port=server.port, user="postgres", password="")
