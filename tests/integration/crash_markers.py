"""Where the crash points are in the code: each is marked there by a comment, `# crash point: NAME`.

The comment stands on the line of the effect, or above it, or on the line of a `def` whose whole function is the effect.
It means the function around it (not one inside that), whatever its name is: to rename or move one breaks no test.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("actors", "storage")
_MARKER = re.compile(r"# crash point: (.+)$")
_Function = ast.FunctionDef | ast.AsyncFunctionDef


def marked_places(root: Path = ROOT) -> dict[str, str]:
    """Where each point is, by its name: `actors/service/upkeep.py:Upkeep.prune`.

    Raises:
        ValueError: a comment stands outside any function, or the name of a point stands twice.
    """
    found: dict[str, str] = {}
    for path in sorted(path for package in PACKAGES for path in (root / package).rglob("*.py")):
        text = path.read_text()
        if "# crash point:" not in text:
            continue
        functions = list(_functions(ast.parse(text)))
        for number, line in enumerate(text.splitlines(), 1):
            marker = _MARKER.search(line)
            if marker is None:
                continue
            here = f"{path.relative_to(root).as_posix()}:{number}"
            name = next((name for name, first, last in functions if first <= number <= last), None)
            if name is None:
                raise ValueError(f"{here} marks a crash point outside any function")
            for point in marker[1].split(", "):
                if point in found:
                    raise ValueError(f"{here} marks the crash point {point}, and so does {found[point]}")
                found[point] = f"{path.relative_to(root).as_posix()}:{name}"
    return found


def _functions(tree: ast.AST, inside: str = "") -> Iterator[tuple[str, int, int]]:
    """Those that are in no other function: the qualified name, the first line and the last."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, _Function):
            yield inside + node.name, node.lineno, node.end_lineno or node.lineno
        else:
            yield from _functions(node, f"{inside}{node.name}." if isinstance(node, ast.ClassDef) else inside)
