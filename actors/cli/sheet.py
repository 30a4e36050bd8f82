"""The command that draws a batch's contact sheet."""
# ruff: noqa: FBT002  (a command's options are its parameters)

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from actors.cli.opening import opened, warn
from actors.cli.options import BatchId, Json, Verbose
from actors.errors import InvalidRequest

_KINDS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
_NAMED = 10
"""At most so many characters without a font are named."""


def sheet(
    batch_id: BatchId,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Write it here, as PNG, JPEG or WebP by its suffix; without it, to ID-sheet.png in this folder.",
        ),
    ] = None,
    page: Annotated[
        int | None, typer.Option("--page", metavar="N", help="Only this page of a batch of more than 120 videos.")
    ] = None,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Draw a batch as one picture.

    A tile for each video: its first frame or why there is none, its number, state and prompt. A batch of more than 120
    videos gets several pictures. Needs the extra media.
    """
    from actors.cli.text import print_json, say, shown_path
    from actors.media.frames import film_of, require_media
    from actors.media.sheet import PER_PAGE, contact_sheet, page_count

    require_media()
    file = output or Path(f"{batch_id}-sheet.png")
    kind = _kind(file)
    with opened(verbose=verbose, looked_for=f"batch {batch_id!r}") as service:
        batch = service.get_batch_status(batch_id)
        film, pages = film_of(service.stores), page_count(batch)
        if pages > 1 and page is None:
            warn(f"batch {batch_id} has {len(batch.jobs)} videos: {pages} pictures of up to {PER_PAGE} each")
        written: list[Path] = []
        missing: set[str] = set()
        for number in range(1, pages + 1) if page is None else [page]:
            drawn = contact_sheet(batch, film, number)
            missing |= drawn.missing
            name = file if pages == 1 else file.with_stem(f"{file.stem}-{number:0{len(str(pages))}}")
            _write(name, drawn.encoded(kind))
            written.append(name)
            if not json:
                say(shown_path(name))
    _tell_what_is_missing(missing)
    if json:
        print_json({"batch_id": batch_id, "files": list(map(str, written)), "videos": len(batch.jobs), "pages": pages})


def _kind(file: Path) -> str:
    """The format that a file's suffix means.

    Raises:
        InvalidRequest: it means none.
    """
    kind = _KINDS.get(file.suffix.lower())
    if kind is None:
        raise InvalidRequest(f"--output {str(file)!r}: the name must end with .png, .jpg, .jpeg or .webp")
    return kind


def _write(file: Path, data: bytes) -> None:
    """Write a file whole, in place of an earlier one.

    Raises:
        InvalidRequest: it can't be written there.
    """
    aside = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        aside.write_bytes(data)
        aside.replace(file)
    except OSError as error:
        with suppress(OSError):
            aside.unlink(missing_ok=True)
        reason = error.strerror or error
        raise InvalidRequest(f"can't write {str(file)!r}: {reason}; name another file with --output") from None


def _tell_what_is_missing(missing: set[str]) -> None:
    """Warn of characters that no font has."""
    if not missing:
        return
    named = " ".join(sorted(missing)[:_NAMED])
    more = " ..." if len(missing) > _NAMED else ""
    warn(
        f"no font of this machine has {named}{more}: these characters are shown as boxes. "
        "Install one, such as Debian's fonts-noto-cjk, fonts-noto-core or fonts-noto-color-emoji"
    )
