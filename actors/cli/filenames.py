"""Names of finished files in the user's folder: by the user's pattern, or by number and prompt."""

from __future__ import annotations

import json
import os
import re
import string
import unicodedata
from collections.abc import Iterable
from typing import Any

from actors.batch.job_views import Job
from actors.cli.text import clean
from actors.errors import InvalidRequest

KNOWN = ("index", "id", "prompt", "take", "seed")
_METADATA = "metadata."
_NAMES = f"{', '.join(KNOWN)} or metadata.KEY"
_WIDTH = re.compile(r"0?[1-9]\d?", re.ASCII)
_CUT = re.compile(r"\.[1-9]\d{0,2}", re.ASCII)
_VALUE_BYTES, _NAME_BYTES = 120, 200
"""File systems allow 255 bytes per name; the extension, and a number to tell equal names apart, need some."""
SLUG_CHARACTERS, SLUG_BYTES = 60, 180


def file_name(index: int, total: int, prompt: str, extension: str, take: int | None = None) -> str:
    """`01-a-sunset-over-the-ocean.mp4`: the number as wide as the batch's last one, at least two digits.

    `take`: of a video with several takes, numbered consecutively: `01-a-sunset-take-1.mp4`.
    """
    of_take = "" if take is None else f"-take-{take}"
    return f"{index:0{max(2, len(str(total)))}}-{slug(prompt)}{of_take}{extension}"


def slug(text: str) -> str:
    """The readable part of a file name: letters and digits that file names can have here, joined by `-`."""
    kept = "".join(
        character if unicodedata.category(character)[0] in "LMN" and in_file_names(character) else "-"
        for character in unicodedata.normalize("NFC", text.lower())
    )
    return _cut(re.sub("-+", "-", kept).strip("-")) or "video"


def in_file_names(character: str) -> bool:
    """Whether the locale's encoding has a character."""
    try:
        os.fsencode(character)
    except UnicodeEncodeError:
        return False
    return True


def _cut(name: str) -> str:
    short = name[:SLUG_CHARACTERS].encode()[:SLUG_BYTES].decode(errors="ignore")
    if len(short) < len(name) and name[len(short)] != "-" and "-" in short[SLUG_CHARACTERS // 2 :]:
        short = short[: short.rindex("-")]
    return short.strip("-")


class FileNamePattern:
    """A pattern such as `{index:02} {metadata.product} take {take}`; a `/` separates folders."""

    def __init__(self, text: str) -> None:
        """Read a pattern.

        Raises:
            InvalidRequest: a placeholder has no name, an unknown name or an unknown format.
        """
        self.text = text
        try:
            self._parts = list(string.Formatter().parse(text))
        except ValueError as error:
            raise _wrong(text, f"{str(error).lower()}; to write a brace, double it") from None
        for _, name, form, conversion in self._parts:
            if name is not None:
                self._check(name, form or "", conversion)
        folders = text.split("/")
        if not text.strip() or any(folder.strip(" .") == "" for folder in folders):
            raise _wrong(text, "give a file name, or folders and a file name, below --output")

    def _check(self, name: str, form: str, conversion: str | None) -> None:
        if not name:
            raise _wrong(self.text, f"empty placeholder: use {_NAMES}")
        if name not in KNOWN and not (name.startswith(_METADATA) and len(name) > len(_METADATA)):
            from actors.batch.field_errors import nearest

            near = nearest(name, KNOWN)
            meant = f"did you mean {{{near}}}? " if near else ""
            raise _wrong(self.text, f"unknown placeholder {{{name}}}: {meant}use {_NAMES}")
        if conversion or not (form == "" or _WIDTH.fullmatch(form) or _CUT.fullmatch(form)):
            shown = f"{{{name}{'!' + conversion if conversion else ''}{':' + form if form else ''}}}"
            raise _wrong(
                self.text, f"{shown}: give a width, such as {{index:02}}, or a maximum length, such as {{prompt:.30}}"
            )

    def check_metadata(self, keys: Iterable[str]) -> None:
        """Check that some video's metadata has each `metadata.KEY`.

        Raises:
            InvalidRequest: no video has one of them.
        """
        known = list(dict.fromkeys(keys))
        for _, name, _, _ in self._parts:
            key = name.removeprefix(_METADATA) if name and name.startswith(_METADATA) else None
            if key is not None and key not in known:
                told = f"use {', '.join(known[:20])}" if known else "their metadata is empty"
                raise _wrong(self.text, f"no video has {key!r} in its metadata: {told}")

    def name(self, job: Job, extension: str) -> str:
        """The name of a job's file, with `/` between folders."""
        text = "".join(
            literal.replace("\0", "") + ("" if name is None else self._value(job, name, form or ""))
            for literal, name, form, _ in self._parts
        )
        return "/".join(map(_component, text.split("/"))) + extension

    def _value(self, job: Job, name: str, form: str) -> str:
        key = name.removeprefix(_METADATA)
        value: Any = getattr(job, name) if name in KNOWN else job.metadata.get(key)
        text = "" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        text = _shortened(clean(text).replace("/", "-"), _VALUE_BYTES)
        if form.startswith("."):
            return text[: int(form[1:])].rstrip()
        return text.rjust(int(form), "0" if form[0] == "0" else " ") if form and text.isdigit() else text


def _component(name: str) -> str:
    """A name that is short enough for every file system and that is not hidden."""
    written = "".join(character if in_file_names(character) else "-" for character in name)
    return _shortened(written.strip().lstrip("."), _NAME_BYTES).strip() or "video"


def _shortened(text: str, most: int) -> str:
    return text.encode(errors="replace")[:most].decode(errors="ignore")


def _wrong(text: str, what: str) -> InvalidRequest:
    return InvalidRequest(f"--filename {text!r}: {what}")
