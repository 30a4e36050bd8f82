"""The program `sora-batch`: its commands, and how their errors become a sentence and an exit code.

Imports nothing heavy, so that `--help` is instant.
"""
# ruff: noqa: FBT002  (a command's options are its parameters)

from __future__ import annotations

import contextlib
import functools
import logging
import os
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any, ParamSpec

import typer

from actors.cli import (
    costs,
    create,
    doctor,
    fetch,
    inspect,
    manage,
    migrate,
    quote,
    retry,
    run,
    serve,
    sheet,
    simulator,
    submit,
    watch,
    web,
)
from actors.cli.options import USAGE, Verbose, exit_code, warn
from actors.cli.usage import Program
from actors.errors import ErrorCode, InvalidRequest, SoraBatchError

P = ParamSpec("P")
INTERRUPTED = 130


def guarded(command: Callable[P, None]) -> Callable[P, None]:
    """Turn a command's exceptions into one sentence on standard error, and an exit code."""

    @functools.wraps(command)
    def run_command(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None
        except (typer.Exit, typer.Abort, BrokenPipeError):
            raise
        except Exception as error:  # noqa: BLE001  (nobody else would put it in a sentence)
            raise typer.Exit(report(error, verbose=bool(kwargs["verbose"]), json=bool(kwargs.get("json")))) from None

    return run_command


def report(error: Exception, *, verbose: bool, json: bool) -> int:
    """Print the error and return the exit code."""
    # A missing extra: the message says how to install it.
    missing = isinstance(error, ModuleNotFoundError) and "pip install" in str(error)
    if missing or isinstance(error, SoraBatchError):
        sentence = str(error)
    else:
        sentence = f"unexpected {type(error).__name__}: {error}" + (
            "" if verbose else "; run again with -v for the traceback"
        )
    if verbose:
        _print_traceback(error)
    warn(sentence, level=logging.ERROR, action="failed")
    if json:
        with contextlib.suppress(OSError):  # it may be what failed
            _print_error(error, sentence)
    return USAGE if missing else exit_code(error)


def _print_error(error: Exception, sentence: str) -> None:
    from actors.cli.table import print_json
    from actors.logs import masked

    code = error.code if isinstance(error, SoraBatchError) else ErrorCode.INTERNAL
    document: dict[str, Any] = {"code": code.value, "message": masked(sentence)}
    if isinstance(error, InvalidRequest):
        document["errors"] = [
            {"field": entry.field, "message": masked(entry.message), "expected": entry.expected, "code": entry.code}
            for entry in error.errors
        ]
    print_json({"error": document})


def _print_traceback(error: Exception) -> None:
    import traceback

    from actors.logs import harmless, tell

    text = harmless("".join(traceback.format_exception(error)))
    if not tell(text, logging.ERROR, "traceback"):
        typer.echo(text, err=True, nl=False)


def _version(value: bool) -> None:  # noqa: FBT001  (Typer calls it so)
    if value:
        from importlib.metadata import PackageNotFoundError, version

        try:
            typer.echo(f"sora-batch {version('sora-batch')}")
        except PackageNotFoundError:
            typer.echo("sora-batch (not installed)")
        raise typer.Exit


def _program(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
    verbose: Verbose = False,
) -> None:
    """Make batches of videos on a server that speaks the Videos API, or with the built-in simulator.

    Start with: sora-batch demo
    """


# Rich help would take three times as long as all the rest of `--help`.
app = typer.Typer(
    cls=Program, callback=_program, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)  # fmt: skip


def _add(command: Callable[..., None], *examples: str) -> None:
    lines = "\n".join(f"  sora-batch {example}" for example in examples)
    app.command(command.__name__.rstrip("_"), epilog=f"\b\nExamples:\n{lines}")(guarded(command))


_add(
    run.run,
    "run prompts.txt --output films",
    "run -p 'A sunset over the ocean' -p 'City lights at night' --duration 8",
    "run batch.yaml --concurrency 5 --name 'Nature scenes' --metadata team=blue",
    "run prompts.csv --simulate --json > batch.json",
    "run - --quiet < prompts.txt",
    "run -p 'A boat' --input-reference 'shots/*.png' --takes 3 --seed 7 --param fps=24",
    "run batch.yaml --output films --filename '{index:02} {metadata.product} take {take}'",
)
_add(
    create.create,
    "create batch.yaml --dry-run",
    "create batch.yaml --id nature && sora-batch resume nature",
    "create prompts.csv --defaults house-style.yaml --budget '20 USD'",
)
_add(quote.quote, "quote batch.yaml", "quote prompts.txt --model sora-2 --duration 8 --takes 3 --json")
_add(run.demo, "demo", "demo --web", "demo --output films")
_add(
    costs.costs,
    "costs",
    "costs --since 30d --by day",
    "costs --by metadata.team --csv > costs.csv",
    "costs --settle 3f0c... released",
)
_add(inspect.status, "status nature", "status nature --json", "status nature --remote")
_add(inspect.list_, "list", "list --status failed --metadata team=blue")
_add(manage.cancel, "cancel nature", "cancel nature --reason 'wrong prompts'", "cancel nature --remote")
_add(
    retry.retry,
    "retry nature",
    "retry nature --job 2 --prompt 'A calm sea'",
    "retry nature --set 2.duration=8 --set 2.params.fps=24",
    "retry nature --job 3 --pay-again",
)
_add(run.resume, "resume", "resume nature --output films")
_add(inspect.audit, "audit", "audit --checksums --json")
_add(inspect.history, "history nature", "history nature --from 12 --json")
_add(
    fetch.fetch,
    "fetch nature --output films",
    "fetch nature water --output films --filename '{id} {prompt:.30}'",
    "fetch nature --remote --json",
)
_add(sheet.sheet, "sheet nature", "sheet nature --output nature.webp", "sheet nature --page 2 --json")
_add(serve.serve, "serve", "serve --simulate", "serve --no-migrate")
_add(web.web, "web", "web 8080 --no-open", "web --simulate")
_add(migrate.migrate, "migrate", "migrate --json", "migrate --restored")
_add(
    submit.submit,
    "submit prompts.txt",
    "submit batch.yaml --watch",
    "submit batch.yaml --id nature --require-service",
    "submit -p 'A sunset over the ocean' --duration 8 --json",
)
_add(watch.watch, "watch nature", "watch --bind 'batch.completed.#' --json", "watch nature --json | jq .type")
_add(manage.delete, "delete nature", "delete nature water --keep-files", "delete nature --remote --json")
_add(manage.prune, "prune", "prune --older-than 7d --batches", "prune --older-than 90d --files")
_add(
    simulator.simulator,
    "simulator --port 8089",
    "simulator --latency 1-3 --failure-rate 0.2 --seed 7",
    "simulator --moderation blood --rate-limit 2/s --api-key secret",
)
_add(doctor.doctor, "doctor", "doctor --json", "doctor --declare")


def _open_closed_streams() -> None:
    """Discard what is written to a stream that the caller has closed (`2>&-`).

    Opening takes the lowest free descriptor, the stream's own: else the database would be opened in its place.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: PTH123, SIM115


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program and exit."""
    _open_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        # A prompt in any script must not crash the program on a terminal that can't show it.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    app(args=web.with_place(sys.argv[1:] if arguments is None else arguments), prog_name="sora-batch")
