"""A video's bytes: an MP4's boxes around a filler that only this video has: its sha256 tells it apart."""

import hashlib
from functools import lru_cache
from random import Random

_FTYP = b"\x00\x00\x00\x18ftypisom\x00\x00\x02\x00isommp41"


def content(video_id: str, size: int) -> bytes:
    body = size - len(_FTYP)
    filler = Random(video_id).randbytes(body - 8)  # noqa: S311 - to be recognised, not to be secret
    return b"".join((_FTYP, body.to_bytes(4), b"mdat", filler))


@lru_cache(maxsize=100_000)
def sha256(video_id: str, size: int) -> str:
    return hashlib.sha256(content(video_id, size)).hexdigest()
