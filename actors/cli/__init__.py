"""The command line: `sora-batch`, and `python -m actors.cli`."""

from actors.cli import commands  # noqa: F401  (adds them to the program)
from actors.cli.app import main

__all__ = ["main"]
