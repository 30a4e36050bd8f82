"""Images, videos and audio by their first bytes: real files where a library here writes them, else their headers."""

import io

import pytest

from actors.batch.media_types import media_type

av = pytest.importorskip("av")


def film(container, codec):
    """A real file with one picture, or with some silence."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as output:
        if codec in ("mpeg4", "vp8", "mjpeg", "png", "bmp", "tiff", "gif"):
            stream = output.add_stream(codec, rate=1)
            stream.width = stream.height = 16
            stream.pix_fmt = {"mjpeg": "yuvj420p", "png": "rgb24", "bmp": "bgr24", "tiff": "rgb24", "gif": "rgb8"}.get(
                codec, "yuv420p"
            )
            frame = av.VideoFrame(16, 16, stream.pix_fmt)
        else:
            stream = output.add_stream(codec, rate=48_000)
            frame = av.AudioFrame(stream.format.name, "stereo", 1024)
            frame.sample_rate = 48_000
            for plane in frame.planes:
                plane.update(bytes(plane.buffer_size))
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("container", "codec", "kind"),
    [
        ("mp4", "mpeg4", "video/mp4"), ("mov", "mpeg4", "video/quicktime"), ("webm", "vp8", "video/webm"),
        ("matroska", "mpeg4", "video/x-matroska"), ("avi", "mpeg4", "video/x-msvideo"), ("ipod", "aac", "audio/mp4"),
        ("wav", "pcm_s16le", "audio/wav"), ("flac", "flac", "audio/flac"), ("ogg", "opus", "audio/ogg"),
        ("adts", "aac", "audio/aac"), ("aiff", "pcm_s16be", "audio/aiff"), ("gif", "gif", "image/gif"),
        ("image2pipe", "png", "image/png"), ("image2pipe", "mjpeg", "image/jpeg"), ("image2pipe", "bmp", "image/bmp"),
        ("image2pipe", "tiff", "image/tiff"),
    ],
)  # fmt: skip
def test_a_real_file_is_known(container, codec, kind):
    assert media_type(film(container, codec)) == kind


def test_mp3_is_known_with_and_without_a_tag():
    plain = film("mp3", "libmp3lame") if "libmp3lame" in av.codecs_available else b"ID3\x04" + bytes(20)
    assert media_type(plain) == "audio/mpeg"
    assert media_type(bytes.fromhex("fffb90c4") + bytes(20)) == "audio/mpeg"


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"GIF87a", "image/gif"), (b"RIFF\x10\0\0\0WEBPVP8 ", "image/webp"), (b"MM\0*", "image/tiff"),
        (b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf", "image/avif"), (b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf", "image/avif"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "image/heic"), (b"\0\0\0\x14ftypmif1\0\0\0\0mif1", "image/heif"),
        (b"\0\0\0\x18ftypM4A \0\0\0\0isommp42", "audio/mp4"), (b"\0\0\0\x08wide\0\0\0\0mdat", "video/quicktime"),
        (b"OggS\0\x02" + bytes(22) + b"\x80theora", "video/ogg"),
    ],
)  # fmt: skip
def test_a_header_is_known(head, kind):
    assert media_type(head) == kind


@pytest.mark.parametrize(
    "content",
    [
        b"", b"?", b"BMW in the rain, at night", b"The free lunch", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"%PDF-1.7", b"PK\x03\x04",
        "A lake".encode("utf-16"), b"\xff\xff\xff\xff", b"\xff\xfb", b"\x1a\x45\xdf\xa3" + bytes(60), b"RIFF\x10\0\0\0sfbk",
        b"\0\0\0\x18ftyp", b"\x89PN", b"GIF88a", b"#!/bin/sh\n",
    ],
)  # fmt: skip
def test_what_is_something_else_is_not_taken_for_one(content):
    assert media_type(content) is None
