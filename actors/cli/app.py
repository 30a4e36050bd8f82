"""The program `sora-batch`: its commands, and how their errors become a sentence and an exit code.

Imports nothing heavy: `--help` is to come at once.
"""
# ruff: noqa: FBT002  (a command's options are its parameters)

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from actors.cli import doctor, inspect, manage, run, simulator
from actors.cli.options import Invocation, Verbose, warn
from actors.errors import Conflict, ErrorCode, InvalidRequest, NotFound, SoraBatchError

if TYPE_CHECKING:
    from collections.abc import Sequence

USAGE, INTERRUPTED = 2, 130


class Program(TyperGroup):
    """Turns what goes wrong in a command into one sentence on standard error, and an exit code."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: typer.Context | None = None, **extra: Any
    ) -> typer.Context:
        """Start with nothing said."""
        extra.setdefault("obj", Invocation())
        return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: typer.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None
        except (typer.Exit, typer.Abort, typer.TyperException, BrokenPipeError):
            raise
        except Exception as error:
            if ctx.obj.verbose:
                _print_traceback()
            raise typer.Exit(report(error, ctx.obj)) from None


def report(error: Exception, invocation: Invocation) -> int:
    """Say what is wrong, and give the exit code."""
    known = isinstance(error, SoraBatchError)
    # What an extra brings is missing: its sentence says how to install it.
    missing = isinstance(error, ModuleNotFoundError) and "pip install" in str(error)
    if known or missing:
        sentence = str(error)
    else:
        hint = "" if invocation.verbose else "; -v shows where"
        sentence = f"unexpected {type(error).__name__}: {error}{hint}"
    warn(sentence)
    if invocation.json:
        _print_error(error, sentence)
    return USAGE if missing or isinstance(error, InvalidRequest | NotFound | Conflict) else 1


def _print_error(error: Exception, sentence: str) -> None:
    from actors.cli.table import print_json  # noqa: PLC0415  (only once something went wrong)

    code = error.code if isinstance(error, SoraBatchError) else ErrorCode.INTERNAL
    document: dict[str, Any] = {"code": code.value, "message": sentence}
    if isinstance(error, InvalidRequest):
        document["errors"] = [
            {"field": entry.field, "message": entry.message, "expected": entry.expected, "code": entry.code}
            for entry in error.errors
        ]
    print_json({"error": document})


def _print_traceback() -> None:
    import traceback  # noqa: PLC0415

    traceback.print_exc()


def _version(value: bool) -> None:  # noqa: FBT001  (Typer calls it so)
    if value:
        from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415

        try:
            typer.echo(f"sora-batch {version('sora-batch')}")
        except PackageNotFoundError:
            typer.echo("sora-batch (not installed)")
        raise typer.Exit


def _program(
    version: Annotated[  # noqa: ARG001  (its callback does all)
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
    verbose: Verbose = False,  # noqa: ARG001
) -> None:
    """Make batches of videos with a server that speaks the Videos API, or with the built-in simulator.

    Start with: sora-batch demo
    """


# Rich help would take three times as long as all the rest of `--help`.
app = typer.Typer(
    cls=Program, callback=_program, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)  # fmt: skip


def _examples(*lines: str) -> str:
    return "\b\nExamples:\n" + "\n".join(f"  sora-batch {line}" for line in lines)


app.command(
    epilog=_examples(
        "run prompts.txt --output films",
        "run -p 'A sunset over the ocean' -p 'City lights at night' --duration 8",
        "run batch.yaml --concurrency 5 --name 'Nature scenes' --metadata team=blue",
        "run prompts.csv --simulate --json > batch.json",
        "run - --quiet < prompts.txt",
    )
)(run.run)
app.command(epilog=_examples("demo", "demo --output films"))(run.demo)
app.command(epilog=_examples("status nature", "status nature --json"))(inspect.status)
app.command("list", epilog=_examples("list", "list --status failed --metadata team=blue"))(inspect.list_)
app.command(epilog=_examples("cancel nature", "cancel nature --reason 'wrong prompts'"))(manage.cancel)
app.command(
    epilog=_examples(
        "retry nature",
        "retry nature --job 2 --prompt 'A calm sea'",
        "retry nature --set 2.duration=8 --set 2.size=1280x720",
        "retry nature --job 3 --pay-again",
    )
)(run.retry)
app.command(epilog=_examples("resume", "resume nature --output films"))(run.resume)
app.command(epilog=_examples("history nature", "history nature --from 12 --json"))(inspect.history)
app.command(epilog=_examples("prune", "prune --older-than 7d --batches"))(manage.prune)
app.command(
    epilog=_examples(
        "simulator --port 8089",
        "simulator --latency 1-3 --failure-rate 0.2 --seed 7",
        "simulator --moderation blood --rate-limit 2/s --api-key secret",
    )
)(simulator.simulator)
app.command(epilog=_examples("doctor", "doctor --json"))(doctor.doctor)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program and exit."""
    for stream in (sys.stdout, sys.stderr):
        # A prompt in any script must not end the program on a terminal that can't show it.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    app(args=list(arguments) if arguments is not None else None, prog_name="sora-batch")
