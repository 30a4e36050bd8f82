"""Tries sora-batch with servers that nobody here wrote: LiteLLM's proxy, vLLM-Omni and SGLang.

`python -m tests.servers.real [litellm] [vllm_omni] [sglang] [--trial WORDS] [--report] [--install]` starts each
server's own HTTP routes, with a stub in place of the model, and runs the trials. It ends with 1 if a video was made
twice or a trial broke off; what a server can't do is told in the report. Not run in CI: the servers are large.
"""

import argparse
import sys
import tempfile
import time
import traceback
from pathlib import Path

from tests.servers.packages import ServerError
from tests.servers.real.desk import Desk
from tests.servers.real.features import FEATURES
from tests.servers.real.litellm import LiteLLM
from tests.servers.real.report import Report
from tests.servers.real.server import SteeredServer
from tests.servers.real.sglang import Sglang
from tests.servers.real.special import PROXY_TRIALS, SGLANG_TRIALS, VLLM_OMNI_TRIALS
from tests.servers.real.trials import TRIALS, Outcome, Trial, check_paid
from tests.servers.real.vllm_omni import VllmOmni

SERVERS: dict[str, tuple[type[SteeredServer], dict[str, Trial]]] = {
    "litellm": (LiteLLM, PROXY_TRIALS),
    "vllm_omni": (VllmOmni, VLLM_OMNI_TRIALS),
    "sglang": (Sglang, SGLANG_TRIALS),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("servers", nargs="*", choices=[*SERVERS, []], metavar="SERVER")
    parser.add_argument("--trial", default="", help="only trials with these words in their name")
    parser.add_argument("--report", action="store_true", help="write the tables into docs/servers.md")
    parser.add_argument("--install", action="store_true", help="install the servers' packages, and try nothing")
    wanted = parser.parse_args()
    if wanted.report and wanted.trial:
        parser.error("--report writes whole tables: leave --trial out")
    failed = 0
    for name in wanted.servers or SERVERS:
        kind, more = SERVERS[name]
        if wanted.install:
            kind.environment.install()
        elif kind.environment.version is None:
            print(f"skipped: {kind.title} is not installed: {kind.environment.remedy}")
        else:
            report, wrong = _tried(
                name, kind, {t: f for t, f in (TRIALS | FEATURES | more).items() if wanted.trial in t}
            )
            failed += wrong
            if wanted.report:
                report.write()
    return 1 if failed else 0


def _tried(name: str, kind: type[SteeredServer], trials: dict[str, Trial]) -> tuple[Report, int]:
    """Run the trials with one server; return the report, and how many broke a promise or off."""
    wrong = 0
    with tempfile.TemporaryDirectory() as folder, kind() as server:
        report = Report(name, server.title, server.version)
        for number, (trial, function) in enumerate(trials.items()):
            began, desk = time.monotonic(), Desk(f"trial-{number}", Path(folder), server.user)
            try:
                outcome = function(server, desk)
                made = check_paid(server, desk)
            except (AssertionError, ServerError, TimeoutError, OSError, LookupError, ValueError) as error:
                traceback.print_exc()
                outcome, made, wrong = Outcome(False, f"broke off: {type(error).__name__}: {error}"), 0, wrong + 1
            report.rows.append((trial, outcome, made))
            print(f"{name}: {trial}: {outcome.works}, {time.monotonic() - began:.0f} s: {outcome.told}", flush=True)
            server.mend()
    return report, wrong


if __name__ == "__main__":
    sys.exit(main())
