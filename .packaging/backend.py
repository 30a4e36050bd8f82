"""What builds the package: setuptools, and two things that its settings can't say.

The source distribution holds more than the packages, by `manifest.in` beside this file: nothing else may lie at the top
of the project. And a package index has no files for README.md's links to lead to, so the description that it shows
names each file by its path.
"""

import re
from pathlib import Path

from setuptools.build_meta import *  # noqa: F403  (a backend is a module with these hooks)
from setuptools.command.egg_info import manifest_maker

HERE = Path(__file__).parent
FILES = re.compile(r"\[([^\]]+)\]\((?!https?:|#)([^)#\s]+)(?:#[^)\s]*)?\)")
NOTE = "The files named below, such as `docs/architecture.md`, are in the source distribution.\n\n"


def description(readme: str) -> str:
    """README.md as a package index shows it: a link to a file becomes its text and the file's path."""
    head, heading, rest = readme.partition("\n\n")
    return head + heading + NOTE + FILES.sub(r"\1 (`\2`)", rest)


manifest_maker.template = str((HERE / "manifest.in").relative_to(Path.cwd()))
(HERE / "description.md").write_text(description((HERE.parent / "README.md").read_text("utf-8")), "utf-8")
