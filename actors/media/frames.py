"""The first frame of a stored film, as a picture of a given size; only the parts that it needs are read."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from actors.batch.job_views import Job
from actors.errors import ErrorCode, SoraBatchError, StorageError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer
    from av import VideoFrame
    from av.container import InputContainer
    from PIL.Image import Image

    from storage.stores import Stores

NO_MEDIA = "posters and contact sheets need PyAV and Pillow: pip install 'sora-batch[media]'"
POSTER = "image/webp"
"""The content type of a poster."""
POSTER_SIDE = 640
"""The longer side of a poster in pixels; a smaller film keeps its own size."""
_QUALITY = 82
_AHEAD = 1 << 18
"""Bytes that are read at a time: a request to a bucket costs more than these."""
_FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,gif"
"""Containers of films. A playlist would make FFmpeg open the files and addresses that it names."""
_MOST_PIXELS = 1 << 26
_MOST_PACKETS = 300
"""How far into a damaged film the first frame is looked for."""


class MediaUnavailable(ModuleNotFoundError):
    """The extra `media` is not installed."""


class UnreadableVideo(SoraBatchError):
    """A file that is no film, or a damaged one: it has no first frame."""

    code = ErrorCode.STORAGE


def require_media() -> None:
    """Check that the extra is installed; nothing is imported.

    Raises:
        MediaUnavailable: it is not; the text says how to install it.
    """
    for name in ("av", "PIL"):
        if importlib.util.find_spec(name) is None:
            raise MediaUnavailable(NO_MEDIA, name=name)


def film_of(stores: Stores) -> Callable[[Job], BinaryIO]:
    """What opens the film of a completed job; it raises StorageError or OSError if there is none."""

    def opened(job: Job) -> BinaryIO:
        video = job.video
        if video is None:
            raise StorageError("no file is recorded")
        if video.removed_at is not None:
            raise StorageError(f"its file was removed on {video.removed_at:%Y-%m-%d}")
        return cast("BinaryIO", io.BufferedReader(_Film(stores, video.uri, video.bytes), _AHEAD))

    return opened


class _Film(io.RawIOBase):
    def __init__(self, stores: Stores, uri: str, size: int) -> None:
        self._stores, self._uri, self._size, self._at = stores, uri, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, start + offset)
        return self._at

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer).cast("B")
        end = min(self._at + len(view), self._size)
        filled = 0
        if self._at < end:
            try:
                for piece in self._stores.read(self._uri, self._at, end):
                    view[filled : filled + len(piece)] = piece
                    filled += len(piece)
            except (FileNotFoundError, NotADirectoryError):
                raise StorageError("its file is gone") from None
        self._at += filled
        return filled


def first_frame(film: BinaryIO, longest: int) -> Image:
    """The first picture of a film, upright, in RGB.

    Args:
        film: its bytes; can be sought in. Only what is needed is read.
        longest: the most pixels of its longer side; it is never enlarged.

    Raises:
        MediaUnavailable: the extra `media` is not installed.
        UnreadableVideo: there is none; the text says why.
        OSError: it can't be read.
    """
    require_media()
    import av

    try:
        # The bytes are handed in, so FFmpeg needs no protocol: what a film refers to is never opened.
        options = {"format_whitelist": _FORMATS, "protocol_whitelist": "none"}
        with av.open(film, "r", options=options, **_any_texts()) as container:
            return _picture(_decoded(container), longest)
    except (av.FFmpegError, ValueError, MemoryError) as error:
        if isinstance(error, OSError) and not isinstance(error, av.FFmpegError):
            raise
        raise UnreadableVideo(f"not a video that can be read, or a damaged one: {_reason(error)}") from error


def _any_texts() -> dict[str, Any]:
    """For films whose texts are not UTF-8: from 19 on, PyAV opens them as it is, and takes no such option."""
    import av

    return {"metadata_errors": "replace"} if int(av.__version__.partition(".")[0]) < 19 else {}


def poster(film: BinaryIO) -> bytes:
    """The first frame of a film as WebP, its longer side at most `POSTER_SIDE` pixels.

    Raises:
        MediaUnavailable, UnreadableVideo, OSError: as `first_frame`.
    """
    written = io.BytesIO()
    first_frame(film, POSTER_SIDE).save(written, "WEBP", quality=_QUALITY)
    return written.getvalue()


def _decoded(container: InputContainer) -> VideoFrame:
    if not container.streams.video:
        raise UnreadableVideo("it contains no pictures")
    stream = container.streams.video[0]
    context = stream.codec_context
    if context.width * context.height > _MOST_PIXELS:
        raise UnreadableVideo(f"its pictures of {context.width}x{context.height} are too large")
    context.thread_count = 1
    # A film may change its size: FFmpeg itself refuses larger pictures.
    context.options = {"max_pixels": str(_MOST_PIXELS)}
    for number, packet in enumerate(container.demux(stream)):
        for frame in packet.decode():
            return frame
        if number >= _MOST_PACKETS:
            break
    raise UnreadableVideo("it contains no complete picture")


def _picture(frame: VideoFrame, longest: int) -> Image:
    from PIL.Image import Resampling

    width, height = frame.width, frame.height
    shrink = min(1.0, longest / max(width, height))
    # FFmpeg makes it small before Pillow sees it; never below one pixel.
    small = frame.reformat(max(1, round(width * shrink)), max(1, round(height * shrink)), "rgb24")
    image: Image = small.to_image()  # type: ignore[no-untyped-call]
    rotation = int(getattr(frame, "rotation", 0))  # PyAV 13 does not tell it
    if rotation % 360:
        image = image.rotate(rotation, expand=True, resample=Resampling.BICUBIC)
    return image


def _reason(error: BaseException) -> str:
    text = str(getattr(error, "strerror", None) or error) or type(error).__name__
    return text[:1].lower() + text[1:]
