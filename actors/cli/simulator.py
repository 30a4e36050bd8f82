"""The command `simulator`: a stand-in for the Videos API on a port of its own."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from actors.cli.opening import prepare, warn
from actors.cli.options import Verbose, spelled_out
from actors.errors import InvalidRequest

if TYPE_CHECKING:
    from actors.simulator import SimulatorOptions


@dataclass(frozen=True)
class Behaviour:
    """What the simulator shall do, as `SimulatorOptions` says it."""

    latency: Annotated[str, typer.Option("--latency", metavar="SECONDS|MIN-MAX", help="How long each video takes.")] = (
        "2-5"
    )
    failure_rate: Annotated[float, typer.Option("--failure-rate", help="Share of videos that fail, 0 to 1.")] = 0.0
    moderation: Annotated[
        list[str] | None,
        typer.Option("--moderation", metavar="WORD", help="Block prompts with this word. Repeatable."),
    ] = None
    rate_limit: Annotated[
        str | None, typer.Option("--rate-limit", metavar="N/s", help="Creates per second; more get HTTP 429.")
    ] = None
    api_key: Annotated[str | None, typer.Option("--api-key", help="API key to require.")] = None
    content_bytes: Annotated[
        int | None,
        typer.Option("--content-bytes", min=0, metavar="N", help="Make files of N bytes instead of drawing videos."),
    ] = None
    seed: Annotated[int | None, typer.Option("--seed", help="Same seed, same latencies and failures.")] = None
    strict: Annotated[
        bool, typer.Option("--strict", help="Accept only the seconds, sizes, models and fields of OpenAI's hosted API.")
    ] = False
    profile: Annotated[str, typer.Option("--profile", help="Server to imitate: openai, vllm-omni or sglang.")] = (
        "openai"
    )
    model: Annotated[str | None, typer.Option("--model", help="The only model to serve.")] = None
    replicas: Annotated[
        int,
        typer.Option(
            "--replicas", min=1, metavar="N", help="Serve N stores behind one port; each request goes to one."
        ),
    ] = 1
    state_file: Annotated[
        Path | None, typer.Option("--state-file", metavar="FILE", help="Keep the videos across restarts.")
    ] = None

    def options(self) -> "SimulatorOptions":
        """The options of a simulator.

        Raises:
            InvalidRequest: one is wrong.
        """
        from actors.simulator import SimulatorOptions

        limits = parse_latency(self.latency), parse_rate(self.rate_limit)
        try:
            return SimulatorOptions(
                latency=limits[0], failure_rate=self.failure_rate, moderation=tuple(self.moderation or ()),
                rate_limit=limits[1], api_key=self.api_key, content_bytes=self.content_bytes, seed=self.seed,
                strict=self.strict, profile=self.profile, model=self.model, replicas=self.replicas,
                state_file=self.state_file,
            )  # fmt: skip
        except ValueError as error:
            raise InvalidRequest(f"invalid simulator options: {error}") from None


@spelled_out()
def simulator(
    *,
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="Port to listen on; 0 for any free one.")
    ] = 8089,
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    behaviour: Behaviour,
    verbose: Verbose = False,
) -> None:
    """Serve a simulated Videos API until Ctrl-C.

    Its videos are real MP4 files, marked as simulated; no video model is needed.
    """
    prepare(verbose=verbose, default_level="info")
    _serve(behaviour.options(), host, port)


def parse_latency(text: str) -> tuple[float, float]:
    """Read `3` or `2-5`.

    Raises:
        InvalidRequest: it is neither.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(?:-(\d+(?:\.\d+)?))?", text.strip())
    if match is None:
        raise InvalidRequest(f"--latency {text!r}: expected seconds, such as 3, or a range, such as 2-5")
    return float(match[1]), float(match[2] or match[1])


def parse_rate(text: str | None) -> float | None:
    """Read `5/s` or `5`.

    Raises:
        InvalidRequest: it is neither.
    """
    if text is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(?:/s)?", text.strip())
    if match is None or not float(match[1]):
        raise InvalidRequest(f"--rate-limit {text!r}: expected creates a second above 0, such as 5/s")
    return float(match[1])


def _serve(options: "SimulatorOptions", host: str, port: int) -> None:
    import asyncio

    try:
        asyncio.run(_until_stopped(options, host, port))
    except OSError as error:
        reason = error.strerror or str(error)
        warn(f"the simulator can't listen on {host}:{port}: {reason}; choose another --port or --host")
        raise typer.Exit(1) from None


async def _until_stopped(options: "SimulatorOptions", host: str, port: int) -> None:
    import asyncio
    import signal

    from actors.simulator import Simulator

    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    server = Simulator(options)
    base_url = await server.start(host, port)
    try:
        typer.echo(f"simulated Videos API listening at {base_url} (Ctrl-C to stop). To use it:")
        key = f" OPENAI_API_KEY={options.api_key}" if options.api_key else ""
        typer.echo(f"OPENAI_BASE_URL={base_url}{key} sora-batch run -p 'A sunset over the ocean'")
        await stopped.wait()
    finally:
        await server.stop()
