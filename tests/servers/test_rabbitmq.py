"""The tests' own RabbitMQ node: it does not outlive the tests, however they end."""

import os
import signal
import subprocess
import sys
import threading
from time import monotonic

import pytest

from tests.integration.support import ROOT

pytestmark = pytest.mark.integration

KILLED = """
import os, signal
from tests.servers.rabbitmq import RabbitMQ
node = RabbitMQ()
node.start()
print(node._server.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
PATIENCE = 20.0


def lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_node_whose_tests_are_killed_ends() -> None:
    done = subprocess.run([sys.executable, "-c", KILLED], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    group, pause, deadline = int(done.stdout), threading.Event(), monotonic() + PATIENCE
    while lives(group):
        assert monotonic() < deadline, f"the process group {group} lives on"
        pause.wait(0.05)
