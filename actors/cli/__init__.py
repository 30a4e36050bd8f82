"""The command line: `sora-batch`, and `python -m actors.cli`."""

from actors.cli.app import main

__all__ = ["main"]
