"""The services of a run do not outlive it, however it ends."""

import signal
import subprocess
import sys
import threading
from pathlib import Path
from time import monotonic

import pytest

from tests.integration.support import ROOT

pytestmark = pytest.mark.integration

KILLED = """
import os, signal, sys
from pathlib import Path
from tests.chaos.service import Service
service = Service("service", {}, Path(sys.argv[1]), "simulator", "--port", "0")
service.start("host")
service.send(signal.SIGSTOP)
print(service.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
PATIENCE = 20.0


def lives(pid: int) -> bool:
    """A process whose parent is gone is waited for by the system."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc")
def test_a_suspended_service_whose_run_is_killed_ends(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLED, tmp_path], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    pid, pause, deadline = int(done.stdout), threading.Event(), monotonic() + PATIENCE
    while lives(pid):
        assert monotonic() < deadline, f"the process {pid} lives on"
        pause.wait(0.05)
