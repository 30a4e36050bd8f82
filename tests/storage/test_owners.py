"""Owners: leases, and which processes are dead."""

import os
import signal
import subprocess
import sys

import pytest

from storage.owners import _started, is_dead, this_host, this_process
from tests.builders import an_owner

ASLEEP = [sys.executable, "-c", "import signal; print(flush=True); signal.pause()"]


@pytest.fixture
def owners(storage):
    return storage.owners


@pytest.fixture
def process():
    """A process that lives until a test kills it."""
    with subprocess.Popen(ASLEEP, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        yield process
        process.kill()


def as_an_owner(process):
    return this_process()._replace(pid=process.pid, started=_started(process.pid) or "")


def test_a_lease_lasts_from_the_databases_now_on(storage, owners):
    asked_at = owners.renew(an_owner(), 15.0)
    assert abs(asked_at - storage.database.now()) < 5
    assert owners.alive("us")


def test_a_lease_that_ran_out_is_none_until_it_is_renewed(owners):
    owners.renew(an_owner(), -0.1)
    assert not owners.alive("us")
    owners.renew(an_owner(), 15.0)
    assert owners.alive("us")


def test_an_owner_that_nobody_knows_is_not_alive(owners):
    assert not owners.alive("us")


def test_an_owner_that_is_known_to_be_dead_holds_nothing(owners):
    owners.renew(an_owner(), 15.0)
    owners.expire("us")
    assert not owners.alive("us")


def test_an_owner_that_ended_in_order_is_forgotten(owners):
    owners.renew(an_owner(), 15.0)
    owners.forget("us")
    assert owners.neighbours("here", "today") == []


def test_neighbours_share_the_host_and_its_boot(owners):
    for owner_id, host, boot in [("a", "here", "today"), ("b", "here", "yesterday"), ("c", "there", "today")]:
        owners.renew(an_owner(owner_id, host=host, boot=boot), 15.0)
    (found,) = owners.neighbours("here", "today")
    assert found == an_owner("a", lease_until=found.lease_until)


def test_owners_of_yesterday_are_forgotten(owners):
    owners.renew(an_owner("old"), -86_401)
    owners.renew(an_owner("young"), -86_000)
    assert owners.prune() == 1
    assert [owner.id for owner in owners.neighbours("here", "today")] == ["young"]


def test_this_process_lives():
    owner = this_process()
    assert (owner.pid, (owner.host, owner.boot)) == (os.getpid(), this_host())
    assert not is_dead(owner)


def test_each_service_is_an_owner_of_its_own():
    assert this_process().id != this_process().id


def test_a_process_that_lives_is_not_dead(process):
    assert not is_dead(as_an_owner(process))


def test_a_process_that_was_killed_is_dead(process):
    owner = as_an_owner(process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert is_dead(owner)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a zombie from the living")
def test_a_zombie_is_dead_though_its_pid_is_taken(process):
    owner = as_an_owner(process)
    process.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert is_dead(owner)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells when a process was started")
def test_a_pid_that_another_process_has_by_now_is_no_sign_of_life(process):
    assert is_dead(as_an_owner(process)._replace(started="1"))


def test_a_process_of_somebody_else_lives_as_far_as_we_know():
    assert not is_dead(this_process()._replace(pid=1, started=_started(1) or ""))


def test_a_suspended_process_is_not_dead(process):
    owner = as_an_owner(process)
    process.send_signal(signal.SIGSTOP)
    assert not is_dead(owner)
