"""Tells images, videos and audio by their first bytes, whatever their names say. Pure.

The signatures are those of the MIME Sniffing Standard (https://mimesniff.spec.whatwg.org); of formats that it leaves
out (TIFF, HEIC, QuickTime, Matroska, FLAC), those of their own specifications.
"""

from __future__ import annotations

_HEADS = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"II*\0", "image/tiff"),
    (b"MM\0*", "image/tiff"),
    (b"ID3", "audio/mpeg"),
    (b"fLaC", "audio/flac"),
)
_CHUNKS = {  # in a container with a size at offset 4
    (b"RIFF", b"WEBP"): "image/webp",
    (b"RIFF", b"WAVE"): "audio/wav",
    (b"RIFF", b"AVI "): "video/x-msvideo",
    (b"FORM", b"AIFF"): "audio/aiff",
}
_BRANDS = {  # of the ISO base media file format; any other is a video
    b"avif": "image/avif", b"avis": "image/avif",
    b"heic": "image/heic", b"heix": "image/heic", b"hevc": "image/heic", b"heim": "image/heic", b"heis": "image/heic",
    b"mif1": "image/heif", b"msf1": "image/heif",
    b"M4A ": "audio/mp4", b"M4B ": "audio/mp4",
    b"qt  ": "video/quicktime",
}  # fmt: skip
_QUICKTIME_ATOMS = (b"moov", b"mdat", b"wide", b"free", b"skip")
"""A QuickTime file from before `ftyp` begins with one of these."""
_EBML_HEADER = 64
KNOWN = "PNG, JPEG, GIF, WebP, BMP, TIFF, AVIF, HEIC, MP4, MOV, WebM, MKV, AVI, WAV, MP3, AAC, M4A, FLAC, AIFF or Ogg"
"""The formats, for error messages."""


def media_type(content: bytes) -> str | None:
    """The type of an image, video or audio; None: none of the `KNOWN` formats."""
    for head, kind in _HEADS:
        if content.startswith(head):
            return kind
    if content.startswith(b"BM") and content[6:10] == bytes(4) and len(content) >= 14:  # a text may begin with BM too
        return "image/bmp"
    chunk = (content[:4], content[8:12])
    return _CHUNKS.get(chunk) or _in_boxes(content) or _in_ebml(content) or _in_ogg(content) or _in_frames(content)


def _in_boxes(content: bytes) -> str | None:
    box, brand = content[4:8], content[8:12]
    if box in _QUICKTIME_ATOMS and content[0] <= 2:  # a size that a reference can have; a text begins with a larger one
        return "video/quicktime"
    if box != b"ftyp" or len(brand) < 4:
        return None
    kind = _BRANDS.get(brand, "video/mp4")
    compatible = content[16 : int.from_bytes(content[:4], "big")]
    return "image/avif" if kind == "image/heif" and b"avif" in compatible else kind


def _in_ebml(content: bytes) -> str | None:
    if not content.startswith(b"\x1a\x45\xdf\xa3"):
        return None
    header = content[:_EBML_HEADER]
    return "video/webm" if b"webm" in header else "video/x-matroska" if b"matroska" in header else None


def _in_ogg(content: bytes) -> str | None:
    if not content.startswith(b"OggS\0"):
        return None
    return "video/ogg" if content[28:35] == b"\x80theora" else "audio/ogg"


def _in_frames(content: bytes) -> str | None:
    """MPEG audio without a tag begins with a frame header; UTF-16 begins almost the same."""
    if len(content) < 4 or content[0] != 0xFF or content[1] & 0xE0 != 0xE0:
        return None
    version, layer = content[1] >> 3 & 3, content[1] >> 1 & 3
    rate, sampling = content[2] >> 4, content[2] >> 2 & 3
    if layer == 0 and version >= 2 and content[2] >> 2 & 15 < 13:
        return "audio/aac"
    return "audio/mpeg" if layer in (1, 2) and version != 1 and rate != 15 and sampling != 3 else None
