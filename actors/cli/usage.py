"""Usage errors: an option or argument that Typer refuses, before any command runs."""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup


class Program(TyperGroup):
    """The program's commands; with `--json`, a usage error is a document on standard output too."""

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
                _print(error)
            raise


def _say_plainly(error: Any) -> None:
    """Replace pydantic's words about a value by ours."""
    from pydantic import ValidationError

    from actors.expectations import expectation

    if isinstance(error.__cause__, ValidationError):
        entry = error.__cause__.errors()[0]
        error.message = f"{expectation({**entry})} (got {entry['input']!r})"


def _print(error: Any) -> None:
    from actors.cli.table import print_json
    from actors.errors import ErrorCode
    from actors.logs import masked

    message = masked(error.format_message().strip())
    print_json({"error": {"code": ErrorCode.INVALID_REQUEST.value, "message": message}})
