"""The first frame of a film, and what is no film."""

import io

import pytest
from PIL import Image

from actors.errors import ErrorCode
from actors.media import frames
from actors.media.frames import POSTER_SIDE, MediaUnavailable, UnreadableVideo, first_frame, poster
from tests.actors.media.films import film


@pytest.mark.parametrize(("size", "longest", "made"), [((320, 180), 640, (320, 180)), ((180, 320), 160, (90, 160))])
def test_a_frame_keeps_its_proportions_and_is_never_enlarged(size, longest, made):
    assert first_frame(io.BytesIO(film(*size)), longest).size == made


def test_a_frame_shows_what_the_film_shows():
    image = first_frame(io.BytesIO(film()), 320)
    above, below = image.getpixel((5, 5)), image.getpixel((5, 150))
    assert sum(below) > sum(above) + 60, "the simulator's films grow lighter towards the bottom"


def test_a_poster_is_webp_of_a_limited_size():
    image = Image.open(io.BytesIO(poster(io.BytesIO(film(1280, 720)))))
    assert (image.format, image.size) == ("WEBP", (POSTER_SIDE, 360))


PLAYLIST = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile://{0}\n#EXT-X-ENDLIST\n"


@pytest.mark.parametrize(
    "content",
    [b"", b"hello", film()[:900], b"\0\0\0\x18ftypisom\0\0\2\0isommp41\0\0\0\0free" + b"a" * 500, b"RIFF....WEBP"],
    ids=["empty", "text", "cut", "no pictures", "image"],
)
def test_what_is_no_film_is_named(content):
    with pytest.raises(UnreadableVideo, match=r"not a video|no complete picture") as caught:
        poster(io.BytesIO(content))
    assert caught.value.code is ErrorCode.STORAGE


@pytest.mark.parametrize("playlist", [PLAYLIST, "ffconcat version 1.0\nfile {0}\n"])
def test_a_playlist_opens_no_other_file(tmp_path, playlist):
    path = tmp_path / "secret.mp4"
    path.write_bytes(film())
    with pytest.raises(UnreadableVideo):
        first_frame(io.BytesIO(playlist.format(path).encode()), 100)


def test_a_film_of_absurd_size_is_not_decoded(monkeypatch):
    monkeypatch.setattr(frames, "_MOST_PIXELS", 320 * 180 - 1)
    with pytest.raises(UnreadableVideo, match="320x180 are too large"):
        first_frame(io.BytesIO(film()), 100)


def test_a_missing_extra_is_told_with_the_line_that_brings_it(monkeypatch):
    monkeypatch.setattr(frames.importlib.util, "find_spec", lambda name: None if name == "PIL" else object())
    with pytest.raises(MediaUnavailable, match=r"pip install 'sora-batch\[media\]'"):
        first_frame(io.BytesIO(film()), 100)
