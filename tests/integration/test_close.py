"""The end of a service, and forks of its process: nothing crashes or hangs, whatever other threads do meanwhile."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.integration.support import ROOT, options_for
from tests.provider.client import Provider
from tests.servers.postgresql import PostgreSQL
from tests.servers.rabbitmq import RabbitMQ

pytestmark = pytest.mark.integration
PATIENCE = 120.0
HEAD = """
import collections, json, os, sys, threading, time
from actors import BatchClient, BatchReleased, ServiceClosed, StorageError, get_batch_service
from actors.service import BatchService
from actors.settings import Settings

options = json.loads(sys.argv[1])

def service_of(**changes):
    return BatchService(Settings(_env_file=None, **{**options, **changes}))

def report(**told):
    print(json.dumps(told), flush=True)
"""


@pytest.fixture(params=["sqlite", "postgresql"])
def here(request: pytest.FixtureRequest, tmp_path: Path, provider: Provider) -> dict[str, Any]:
    """Settings with a database of the test's own."""
    options = options_for(provider.base_url, tmp_path, batch_max_size=1000)
    if request.param == "postgresql":
        server: PostgreSQL = request.getfixturevalue("postgresql")
        options["database_url"] = server.url(server.create_database())
    return options


PYTHON = [sys.executable, "-X", "faulthandler", "-W", "ignore:This process:DeprecationWarning"]
"""From 3.12 on, it warns of each fork in a process with threads, which is what is tried here."""


def told_by(script: str, options: dict[str, Any]) -> dict[str, Any]:
    """Run a program; what it reports. Whatever else it writes is an error."""
    done = subprocess.run(
        [*PYTHON, "-c", HEAD + script, json.dumps(options)],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=PATIENCE,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = {"stderr": done.stderr}
    for line in done.stdout.splitlines():
        told.update(json.loads(line))
    return told


READERS = """
seen = collections.Counter()
for round in range(12):
    service = service_of()
    if not round:
        service.create_batch({"id": "a", "videos": [{"prompt": f"x{n}"} for n in range(300)]})
    reading, asked = threading.Barrier(5), threading.Semaphore(0)

    def ask():
        reading.wait()
        while True:
            try:
                service.get_batch_status("a")
                service.update_metadata("a", {"round": round})
                asked.release()
            except ServiceClosed:
                seen["closed"] += 1
                return
            except BaseException as error:
                seen[repr(error)] += 1
                return

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    reading.wait()
    for _ in range(3 * (round % 4)):
        asked.acquire(timeout=60)
    service.close()
    for thread in threads:
        thread.join()
report(seen=seen)
"""


def test_closing_while_others_read_and_write_gives_each_its_answer_or_says_that_it_is_closed(
    here: dict[str, Any],
) -> None:
    assert told_by(READERS, here)["seen"] == {"closed": 48}


LONG_WRITE = """
service = service_of()
begun = threading.Event()

def long_write():
    begun.set()
    while True:
        service._database.execute("UPDATE batches SET wanted=TRUE WHERE id=?", ("x",))

def long_statement():
    begun.set()
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    service._database.execute(endless).fetchall()

results = []

def write(run):
    try:
        results.append(service._write(run))
    except BaseException as error:
        results.append(type(error).__name__)

close = service._recorder.close
service._recorder.close = lambda: close(0.5)
thread = threading.Thread(target=write, args=(globals()[slow],))
thread.start()
begun.wait()
service.close()
thread.join()
again = service_of()
again.create_batch({"id": "later", "videos": [{"prompt": "x"}]})
again.close()
report(results=results)
"""


@pytest.mark.parametrize("write", ["long_write", "long_statement"])
def test_a_write_that_goes_on_for_too_long_is_broken_off_and_that_is_said(here: dict[str, Any], write: str) -> None:
    told = told_by(f"slow = {write!r}\n" + LONG_WRITE, here)
    assert told["results"] == ["ServiceClosed"]
    assert "a write took longer than 0.5 s and is rolled back" in told["stderr"]


LONG_READ = """
service = service_of()
begun, results = threading.Event(), []

def long_read():
    begun.set()
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    return service._database.execute(endless).fetchall()

def read():
    try:
        service._read(long_read)
    except BaseException as error:
        results.append(type(error).__name__)

thread = threading.Thread(target=read)
thread.start()
begun.wait()
service.close()
thread.join()
report(results=results)
"""


def test_a_read_that_goes_on_for_too_long_is_broken_off(here: dict[str, Any]) -> None:
    assert told_by(LONG_READ, here)["results"] == ["ServiceClosed"]


EVERY_METHOD = """
from datetime import timedelta
service = service_of()
service.create_batch({"id": "a", "videos": [{"prompt": "x"}]})
service.close()
service.close()

def outcome(call):
    try:
        return repr(call())
    except Exception as error:
        return f"{type(error).__name__}: {error}"

def outcomes(service):
    return {outcome(call) for call in (
        lambda: service.create_batch({"videos": [{"prompt": "x"}]}), lambda: service.process_batch("a"),
        lambda: service.get_batch_status("a"), lambda: service.cancel_batch("a"), lambda: service.list_batches(),
        lambda: service.retry_batch("a"), lambda: service.resume_batches(), lambda: service.delete_batch("a"),
        lambda: service.update_metadata("a", {}), lambda: service.history("a"), lambda: service.submissions("a"),
        lambda: service.prune(timedelta(1)), lambda: service.audit(), lambda: service.let_go("a"),
        lambda: service.waits("a"), lambda: service.serve(), lambda: service.forget_commands(timedelta(1)),
    )}
"""


def test_every_method_of_a_closed_service_says_so(here: dict[str, Any]) -> None:
    told = told_by(EVERY_METHOD + "report(all=list(outcomes(service)))", here)
    assert told["all"] == ["ServiceClosed: the service is closed; create a new BatchService"]


RACE = """
outcomes = collections.Counter()
for name, side in [(n, s) for n in ("_started", "_apply", "_write", "_run", "_ended") for s in ("before", "after")]:
    service = service_of()
    service.create_batch({"id": f"{side}{name}", "videos": [{"prompt": f"{side}{name}: x"}]})
    passed = threading.Event()

    def passing(*arguments, inner=getattr(service, name), side=side, passed=passed):
        if side == "before":
            passed.set()
        result = inner(*arguments)
        passed.set()
        return result

    setattr(service, name, passing)

    def run():
        try:
            service.process_batch(f"{side}{name}").result(30)
            outcomes["made"] += 1
        except BaseException as error:
            outcomes[type(error).__name__] += 1

    thread = threading.Thread(target=run)
    thread.start()
    passed.wait(60)
    service.close()
    thread.join()
report(outcomes=outcomes)
"""


def test_nobody_waits_for_ever_for_a_batch_that_was_started_while_the_service_closed(here: dict[str, Any]) -> None:
    assert set(told_by(RACE, here)["outcomes"]) <= {"made", "BatchReleased", "ServiceClosed"}


# --- fork

IN_THE_CHILD = """
service = service_of()
os.environ.update(DATABASE_URL=options["database_url"], VIDEO_DIR=options["video_dir"])
service.create_batch({"id": "parents", "videos": [{"prompt": "x"}]})
running = service.process_batch("parents")
child = os.fork()
if child == 0:
    closed = outcomes(service)
    service.close()  # does nothing
    mine = get_batch_service()
    mine.create_batch({"id": "childs", "videos": [{"prompt": "y"}]})
    report(closed=list(closed), same=mine is service, new=get_batch_service() is mine)
    sys.exit(0)
begun = time.monotonic()
status = os.waitpid(child, 0)[1]
report(status=status, seconds=time.monotonic() - begun, parents=running.result(30).status,
       known=sorted(batch.id for batch in service.list_batches()))
service.close()
"""


def test_a_child_makes_a_service_of_its_own_and_ends_quietly(here: dict[str, Any]) -> None:
    script = EVERY_METHOD[: EVERY_METHOD.index("service = ")] + EVERY_METHOD[EVERY_METHOD.index("def outcome") :]
    told = told_by(script + IN_THE_CHILD, here)
    assert told["closed"] == ["ServiceClosed: this service was created before a fork; create one in each process"]
    assert (told["same"], told["new"]) == (False, True)
    assert (told["status"], told["parents"], told["known"]) == (0, "completed", ["childs", "parents"])
    assert told["seconds"] < 10
    assert told["stderr"] == ""


OUTLIVES = """
service = service_of()
service.create_batch({"id": "parents", "videos": [{"prompt": "x"}]})
writes, reads = os.pipe(), os.pipe()
if os.fork() == 0:
    mine = service_of()
    mine.create_batch({"id": "first", "videos": [{"prompt": "y"}]})
    os.write(writes[1], b"x")
    os.read(reads[0], 1)  # meanwhile the parent has closed its last connection, and another program was here
    mine.create_batch({"id": "second", "videos": [{"prompt": "y"}]})
    mine.close()
    os._exit(0)
os.read(writes[0], 1)
service.close()
service_of().close()
os.write(reads[1], b"x")
status = os.wait()[1]
report(status=status, known=sorted(batch.id for batch in service_of().list_batches()))
"""


def test_what_a_child_records_outlives_the_end_of_its_parents_service(here: dict[str, Any]) -> None:
    assert told_by(OUTLIVES, here) == {"status": 0, "known": ["first", "parents", "second"], "stderr": ""}


TOGETHER = """
import signal
os.setpgid(0, 0)
databases = [service_of(database_url=f"{options['database_url']}-{number}") for number in range(3)]
for service in databases:
    service.create_batch({"id": "b", "videos": [{"prompt": "x"}]})
ready, statuses = threading.Barrier(4), []
def fork():
    for _ in range(3):
        ready.wait(30)
        child = os.fork()
        if child == 0:
            os._exit(0)
        statuses.append(os.waitpid(child, 0)[1])
threads = [threading.Thread(target=fork, daemon=True) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join(10)
if any(thread.is_alive() for thread in threads):
    os.killpg(0, signal.SIGKILL)  # with the children that hang
known = [batch.id for service in databases for batch in service.list_batches()]
report(statuses=statuses, known=known)
for service in databases:
    service.close()
"""


def test_threads_that_fork_at_once_leave_every_database_usable(provider: Provider, tmp_path: Path) -> None:
    told = told_by(TOGETHER, options_for(provider.base_url, tmp_path))
    assert told == {"statuses": [0] * 12, "known": ["b"] * 3, "stderr": ""}


CLIENT = """
with BatchClient(options["amqp_url"], timeout=1) as client:
    lines = client._connected()
    child = os.fork()
    if child == 0:
        client._connected().receive(0)
        client._connected().consumers("create")
        client.close()
        os._exit(0 if client._line is None else 1)
    status = os.waitpid(child, 0)[1]
    client._connected().receive(0.1)
    report(status=status, same=client._connected() is lines)
"""


def test_a_client_connects_anew_in_a_child(provider: Provider, tmp_path: Path, rabbitmq: RabbitMQ) -> None:
    options = options_for(provider.base_url, tmp_path, amqp_url=rabbitmq.url)
    assert told_by(CLIENT, options) == {"status": 0, "same": True, "stderr": ""}


IN_USE = """
service = service_of()
begun, go_on = threading.Event(), threading.Event()
held = service._recorder.read(lambda: (begun.set(), go_on.wait(60)))
begun.wait()
import storage.connections
storage.connections.FORK_SECONDS = 0.1
child = os.fork()
if child == 0:
    try:
        service_of()
    except StorageError as error:
        report(error=str(error))
    os._exit(0)
os.waitpid(child, 0)
go_on.set()
service.create_batch({"id": "later", "videos": [{"prompt": "x"}]})
service.close()
"""


def test_a_child_does_not_open_a_file_that_another_thread_was_using(provider: Provider, tmp_path: Path) -> None:
    told = told_by(IN_USE, options_for(provider.base_url, tmp_path))
    assert told["error"].endswith("fork before the service has work, or start a new process (spawn)")
    assert told["error"].startswith(f"the database {tmp_path}/batches.db can't be used in this process")
