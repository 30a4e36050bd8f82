"""What the simulator draws, as files."""

import importlib.util
import subprocess
import sys
from threading import Event
from unittest.mock import Mock

import pytest

from actors.simulator import DrawingUnavailableError
from actors.simulator.films import require_drawing, write_film, write_spritesheet, write_thumbnail
from actors.simulator.pictures import Film, lettering, writable

av = pytest.importorskip("av")


def film(prompt="A sunset over the ocean", size=(320, 180), seconds=2):
    width, height = size
    return Film(prompt=prompt, caption="sora-2", width=width, height=height, seconds=seconds)


def seen(plane, stride, width):
    """The bytes of a plane that belong to the picture: what FFmpeg has at the end of a row is anything."""
    pixels = bytes(plane)
    return b"".join(pixels[row : row + width] for row in range(0, len(pixels), stride))


def frames(path):
    with av.open(path) as container:
        return [seen(frame.planes[0], frame.planes[0].line_size, frame.width) for frame in container.decode(video=0)]


@pytest.mark.parametrize(("size", "seconds"), [((720, 1280), 1), ((1280, 720), 3), ((66, 70), 31), ((64, 4096), 1)])
def test_a_film_has_exactly_the_asked_size_and_length(tmp_path, size, seconds):
    write_film(film(size=size, seconds=seconds), tmp_path / "film.mp4", Event())
    with av.open(tmp_path / "film.mp4") as container:
        (stream,) = container.streams
        assert (stream.width, stream.height) == size
        assert stream.duration * stream.time_base == seconds
        assert container.duration == seconds * 1_000_000
        assert sum(1 for _ in container.decode(stream)) == stream.frames


def test_a_film_says_in_its_metadata_that_it_is_simulated(tmp_path):
    write_film(film(), tmp_path / "film.mp4", Event())
    with av.open(tmp_path / "film.mp4") as container:
        assert container.metadata["comment"].startswith("SIMULATED")
        assert container.metadata["title"] == "A sunset over the ocean"


def test_a_film_moves(tmp_path):
    write_film(film(), tmp_path / "film.mp4", Event())
    pictures = frames(tmp_path / "film.mp4")
    assert len(set(pictures)) == len(pictures)


def test_a_film_that_is_stopped_is_not_drawn_to_its_end(tmp_path):
    stopped = Mock(Event, is_set=Mock(side_effect=[False, False, False, True]))
    write_film(film(seconds=600), tmp_path / "film.mp4", stopped)
    assert len(frames(tmp_path / "film.mp4")) == 3


def test_films_of_other_prompts_look_different(tmp_path):
    for prompt in ("a lake", "a forest"):
        write_film(film(prompt=prompt), tmp_path / f"{prompt}.mp4", Event())
    assert frames(tmp_path / "a lake.mp4")[0] != frames(tmp_path / "a forest.mp4")[0]


@pytest.mark.parametrize("prompt", ["   ", "\x1b[2J\x00\ud800", "word " * 6400, "x" * 32000, "日本語"])
def test_every_prompt_can_be_drawn(tmp_path, prompt):
    write_film(film(prompt=prompt, size=(720, 1280), seconds=1), tmp_path / "film.mp4", Event())
    assert len(frames(tmp_path / "film.mp4")) == 10


def test_a_thumbnail_is_webp_of_the_films_size(tmp_path):
    write_thumbnail(film(), tmp_path / "thumbnail.webp", Event())
    content = (tmp_path / "thumbnail.webp").read_bytes()
    assert (content[:4], content[8:12]) == (b"RIFF", b"WEBP")
    with av.open(tmp_path / "thumbnail.webp") as container:
        assert (container.streams[0].width, container.streams[0].height) == (320, 180)


def test_a_spritesheet_is_a_jpeg_of_ten_moments(tmp_path):
    write_spritesheet(film(), tmp_path / "sheet.jpg", Event())
    assert (tmp_path / "sheet.jpg").read_bytes().startswith(b"\xff\xd8")
    with av.open(tmp_path / "sheet.jpg") as container:
        assert (container.streams[0].width, container.streams[0].height) == (5 * 256, 2 * 144)


def test_lettering_shows_its_text():
    texts = ("SIMULATED", "SIMULATES", " " * 9)
    pictures = [lettering([text], 88, 16) for text in texts]
    drawn, other, blank = (seen(picture.planes[0], picture.strides[0], picture.width) for picture in pictures)
    assert drawn != other
    assert max(drawn) > max(blank) + 100


@pytest.mark.parametrize(
    ("text", "letters"),
    [
        ("naïve café", "naïve café"),
        ("Dvořák", "Dvorák"),
        ("\u201cyes\u201d \u2014 it\u2019s", '"yes" - it\'s'),
        ("a\x1b[31mb\x00", "a[31mb"),
        ("two\n\n  lines", "two lines"),
        ("日本", "??"),
    ],
)
def test_what_cannot_be_drawn_is_replaced(text, letters):
    assert writable(text) == letters


def test_without_pyav_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(DrawingUnavailableError, match=r"pip install 'sora-batch\[simulator\]'"):
        require_drawing()


def test_importing_the_simulator_does_not_import_pyav():
    program = f"import sys; sys.path[:] = {sys.path!r}; import actors.simulator; sys.exit('av' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
