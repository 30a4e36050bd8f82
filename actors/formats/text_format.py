"""Reads text, one prompt per line, and detects the format of a text whose name does not tell it."""

from __future__ import annotations

import json
import re

from actors.formats.common import Request, in_rows, split_lines
from actors.formats.csv_format import looks_like_csv

_REQUEST_KEY = re.compile(
    r"\s*[\"']?(videos|defaults|matrix|budget|prompt|batch_?name|metadata|id|concurrency|timeout_?ms)[\"']?\s*:",
    re.IGNORECASE,
)


def read_text(text: str) -> Request:
    """A request with one prompt per line."""
    numbered = enumerate(map(str.strip, split_lines(text)), 1)
    prompts = {number: line for number, line in numbered if line and not _is_comment(line)}
    request = Request(videos=[{"prompt": line[line.startswith("\\#") :]} for line in prompts.values()])
    request.locate = in_rows(list(prompts))
    return request


def comments_in(text: str) -> int:
    """How many lines are comments."""
    return sum(map(_is_comment, split_lines(text)))


def _is_comment(line: str) -> bool:
    return line.lstrip().startswith("#")


def sniff(text: str) -> str:
    """The format of a text whose name does not tell it."""
    lines = [line for line in split_lines(text) if line.strip() and not _is_comment(line)]
    first = lines[0] if lines else ""
    if first.lstrip().startswith(("{", "[")):
        return "JSON Lines" if len(lines) > 1 and _is_object(first) else "JSON"
    if first.strip() == "---" or _REQUEST_KEY.match(first) or all(line.startswith(("- ", "  ")) for line in lines):
        return "YAML"
    return "CSV" if looks_like_csv(first) else "lines"


def _is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False
