"""A Videos API with a ledger, against which sora-batch is judged; independent of all its code.

    python tests/provider/ledger.py --port 0

It says on standard output, in one line of JSON, when and where it is ready:

    base_url    the Videos API (`records` tells what is kept of it)
    admin_url   the tests' door (`admin`); POST it faults (`faults`) and options (`options`)
    other_url   another address, that redirects lead to; what comes there is in the ledger too

Modules: `api` answers, `studio` makes videos, `records` keeps the ledger, `faults` and `misbehaviour` spoil.
"""

import argparse
import asyncio
import json
import os
import sys
import time
from dataclasses import fields
from pathlib import Path

from aiohttp import web

if not __package__:  # run as a script: its folder, which is on the path then, becomes the project's
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from tests.provider import mp4, replies
from tests.provider.admin import Admin, Changes, restored
from tests.provider.api import VideosApi
from tests.provider.connections import Gate
from tests.provider.faults import Faults
from tests.provider.misbehaviour import Misbehaviour
from tests.provider.options import ID_STYLES, PRICE_TELLINGS, REPLICA_CHOICES, Options, latency
from tests.provider.records import Elsewhere, Ledger
from tests.provider.studio import Studio

HOST = "127.0.0.1"
LARGEST_BODY = 256 * 1024 * 1024


def main() -> None:
    arguments = _arguments()
    asyncio.run(_serve(arguments))


async def _serve(arguments: argparse.Namespace) -> None:
    changes, faults = Changes(), Faults()
    options = Options(**{option.name: getattr(arguments, option.name) for option in fields(Options)})
    studio = Studio(Ledger(), options, changes.happened)
    if arguments.state and arguments.state.exists():
        restored(arguments.state.read_bytes(), studio, faults)
        if arguments.forget:
            studio.forget()
        studio.resume()
    gate = Gate(changes.happened)
    misbehaviour = Misbehaviour(gate)
    admin = Admin(studio, faults, gate, changes, arguments.state)
    api = VideosApi(studio, faults, misbehaviour, changes.happened)
    port = await _listen(_application(admin, api, studio), arguments.port)
    misbehaviour.other_url = f"http://{HOST}:{await _listen(_elsewhere(studio, changes), 0)}"
    if arguments.tied:
        asyncio.get_running_loop().add_reader(sys.stdin.fileno(), _end_with_starter)
    print(json.dumps(_ready(port, misbehaviour.other_url)), flush=True)
    await asyncio.Event().wait()


def _application(admin: Admin, api: VideosApi, studio: Studio) -> web.Application:
    async def say_our_time(_: web.Request, response: web.StreamResponse) -> None:
        if studio.options.skew:
            response.headers["Date"] = replies.date(studio.options.skew)

    application = web.Application(client_max_size=LARGEST_BODY)
    application.on_response_prepare.append(say_our_time)
    application.add_routes(admin.routes() + api.routes())
    return application


def _elsewhere(studio: Studio, changes: Changes) -> web.Application:
    """Another server, to be redirected to: it notes who comes with a key, and has every video."""

    async def note(request: web.Request) -> web.Response:
        seen = Elsewhere(time.time(), request.method, request.path, "Authorization" in request.headers)
        studio.ledger.noted_elsewhere(seen)
        video = studio.ledger.videos.get(request.path.strip("/"))
        if video is None or video.status != "completed":
            response = replies.error(404, "There is no such file here.").response()
        else:
            studio.ledger.fetched_whole(video)
            response = web.Response(body=mp4.content(video.id, video.bytes), content_type="video/mp4")
        changes.happened()
        return response

    application = web.Application(client_max_size=LARGEST_BODY)
    application.add_routes([web.route("*", "/{path:.*}", note)])
    return application


async def _listen(application: web.Application, port: int) -> int:
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, HOST, port, backlog=1024).start()
    return int(runner.addresses[0][1])


def _ready(port: int, other_url: str) -> dict[str, str]:
    return {
        "base_url": f"http://{HOST}:{port}/v1",
        "admin_url": f"http://{HOST}:{port}/_",
        "other_url": other_url,
    }


def _end_with_starter() -> None:
    if not os.read(sys.stdin.fileno(), 4096):
        os._exit(0)  # there is nothing to save, and a request that hangs must not keep us


def _arguments() -> argparse.Namespace:
    default = Options()
    parser = argparse.ArgumentParser(description="A Videos API with a ledger, for tests.")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--latency", type=latency, default=default.latency, help="SECONDS or LEAST-MOST")
    parser.add_argument("--content-bytes", type=int, default=default.content_bytes)
    parser.add_argument("--fail-rate", type=float, default=default.fail_rate)
    parser.add_argument("--fail-words", type=json.loads, default=default.fail_words, help='{"WORD": ERROR}')
    parser.add_argument("--api-key", default=default.api_key)
    parser.add_argument("--id-style", choices=ID_STYLES, default=default.id_style)
    parser.add_argument("--seed", type=int, default=default.seed)
    parser.add_argument("--skew", type=float, default=default.skew)
    parser.add_argument("--tells", type=json.loads, default=default.tells, help='{"KEY": VALUE}')
    parser.add_argument("--create-headers", type=json.loads, default=default.create_headers, help='{"NAME": "VALUE"}')
    parser.add_argument("--prices", type=json.loads, default=default.prices, help='{"MODEL": "DOLLARS A SECOND"}')
    parser.add_argument("--tells-price", choices=PRICE_TELLINGS, default=default.tells_price)
    parser.add_argument("--bills-failed", type=json.loads, default=default.bills_failed, help="true or false")
    parser.add_argument("--replicas", type=int, default=default.replicas)
    parser.add_argument("--replica-choice", choices=REPLICA_CHOICES, default=default.replica_choice)
    parser.add_argument("--state", type=Path, help="where the ledger outlives POST /_/die")
    parser.add_argument("--forget", action="store_true", help="have lost the videos of that state")
    parser.add_argument("--tied", action="store_true", help="end when standard input does")
    return parser.parse_args()


if __name__ == "__main__":
    main()
