"""The program `sora-batch`: its arguments reach a command; its errors and signals become a sentence and an exit code.

Imports nothing heavy, so that `--help` is instant.
"""
# ruff: noqa: FBT002  (a command's options are its parameters)

from __future__ import annotations

import contextlib
import functools
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Annotated, Any, ParamSpec, Self

import typer
from typer.core import TyperGroup

from actors.cli.opening import USAGE, begin_objects, exit_code, warn
from actors.cli.options import Verbose
from actors.errors import (
    ErrorCode,
    FieldError,
    InvalidRequest,
    SoraBatchError,
)

_SHOW_CURSOR = "\x1b[?25h\n"
"""A live view hides it."""
P = ParamSpec("P")
INTERRUPTED = 130
_WEB_WITHOUT_PLACE = frozenset({"run", "demo"})
"""Commands whose `--web` may name no place."""
_SERVICES = frozenset({"serve", "web"})
"""Commands whose standard error is a log."""


class Interrupted(Exception):
    """A signal asked us to stop."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


class Interruption:
    """Ctrl-C and SIGTERM while batches run: the first is noted, the second exits at once."""

    def __init__(self) -> None:
        self._number: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # Python allows handlers nowhere else
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def check(self) -> None:
        """Raise `Interrupted` if a signal came."""
        if self._number is not None:
            raise Interrupted(self._number)

    def _note(self, number: int, _: FrameType | None) -> None:
        if self._number is not None:
            if sys.stderr is not None and sys.stderr.isatty():
                os.write(2, _SHOW_CURSOR.encode())
            os._exit(128 + number)
        self._number = number


def guarded(command: Callable[P, None]) -> Callable[P, None]:
    """Turn a command's exceptions into one sentence on standard error, and an exit code."""

    @functools.wraps(command)
    def run_command(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None
        except Interrupted as interrupted:
            raise typer.Exit(interrupted.exit_code) from None
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
            code = error.code if isinstance(error, SoraBatchError) else ErrorCode.INTERNAL
            _print_error(code, sentence, error.errors if isinstance(error, InvalidRequest) else None)
    return USAGE if missing else exit_code(error)


def _print_error(code: ErrorCode, sentence: str, errors: Sequence[FieldError] | None = None) -> None:
    """One JSON document on standard output; `errors`: of a request, by its fields."""
    from actors.cli.text import print_json
    from actors.logs import masked

    document: dict[str, Any] = {"code": code.value, "message": masked(sentence)}
    if errors is not None:
        document["errors"] = [
            {"field": entry.field, "message": masked(entry.message), "expected": entry.expected, "code": entry.code}
            for entry in errors
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


class Program(TyperGroup):
    """The program's commands; with `--json`, a usage error is a document on standard output too."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that the arguments name; `--verbose` is also accepted before it."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, command, ["--verbose", *rest] if ctx.params.get("verbose") else rest

    def invoke(self, ctx: Any) -> Any:
        """Run the command that the arguments name."""
        given = list(ctx.args)
        try:
            return super().invoke(ctx)
        except Exception as error:
            if not hasattr(error, "format_message"):  # Typer has its own copy of click's exceptions, or not
                raise
            _say_plainly(error)
            if "--json" in given:
                _print_error(ErrorCode.INVALID_REQUEST, error.format_message().strip())
            command = getattr(getattr(error, "ctx", None), "info_name", None)
            if command in _SERVICES and begin_objects():
                sentence = f"{error.format_message().strip()} (sora-batch {command} -h has the options)"
                warn(sentence, level=logging.ERROR, action="failed")
                raise typer.Exit(USAGE) from None
            raise


def _say_plainly(error: Any) -> None:
    """Replace pydantic's words about a value by ours."""
    from pydantic import ValidationError

    from actors.expectations import expectation

    if isinstance(error.__cause__, ValidationError):
        entry = error.__cause__.errors()[0]
        error.message = f"{expectation({**entry})} (got {entry['input']!r})"


# Rich help would take three times as long as all the rest of `--help`.
app = typer.Typer(
    cls=Program, callback=_program, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)  # fmt: skip


def add(command: Callable[..., None], *examples: str) -> None:
    """Add a command to the program, with examples for its `--help`."""
    lines = "\n".join(f"  sora-batch {example}" for example in examples)
    app.command(command.__name__.rstrip("_"), epilog=f"\b\nExamples:\n{lines}")(guarded(command))


def with_place(arguments: Sequence[str]) -> list[str]:
    """The arguments of the program, with an empty place for a `--web` that names none."""
    command = next((each for each in arguments if not each.startswith("-")), None)
    given = list(arguments)
    if command not in _WEB_WITHOUT_PLACE or "--web" not in given:
        return given
    from actors.settings.groups import read_listen

    at = given.index("--web")
    try:
        read_listen(given[at + 1])
    except (IndexError, ValueError):  # nothing follows, or something else
        given[at] = "--web="
    return given


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
    app(args=with_place(sys.argv[1:] if arguments is None else arguments), prog_name="sora-batch")
