"""The contact sheet: every video has a tile, and each text is drawn."""

import io
import os
import signal
import sys
import threading
import time
import traceback
from collections import deque
from pathlib import Path

import pytest
from PIL import Image

from actors.errors import InvalidRequest, StorageError
from actors.media import lettering, sheet
from actors.media.lettering import Lettering
from actors.media.sheet import contact_sheet, page_count
from tests.actors.media.films import batch, film, job
from tests.integration.support import until

WORDS = [
    "A sunset over the ocean", "日落时分的海洋，金色的光线", "غروب الشمس فوق المحيط 🌅 مع ضوء", "שקיעה מעל הים",
    "👩🏽‍🚀🚀 👨‍👩‍👧‍👦 🇯🇵", "e\u0301" * 40, "\u202e\x1b[31m\x00 evil \ud800", "x" * 5000, "", " \n\t ", "ภาพพระอาทิตย์ตก",
]  # fmt: skip


def landscape(_job):
    return io.BytesIO(film())


def colours(image, box):
    return len(image.crop(box).getcolors(1 << 20))


def test_every_video_has_a_tile():
    jobs = [job(number + 1, words) for number, words in enumerate(WORDS)]
    drawn = contact_sheet(batch(*jobs), landscape).image
    png = Image.open(io.BytesIO(contact_sheet(batch(*jobs), landscape).encoded("PNG")))
    assert png.size == drawn.size
    assert drawn.width > 3 * 320


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_sheet_is_written_in_each_kind(kind):
    file = contact_sheet(batch(job(1)), landscape).encoded(kind)
    assert Image.open(io.BytesIO(file)).format == kind


def test_states_have_tiles_of_their_own_colours():
    def gone(_job):
        raise StorageError("its file is gone")

    completed, failed, waiting = job(1), job(2, status="failed", error="timeout"), job(3, status="pending")
    cancelled, missing = job(4, status="cancelled", error="cancelled"), job(5)
    grounds = set()
    for each, film_of in [(completed, landscape), (failed, gone), (waiting, gone), (cancelled, gone), (missing, gone)]:
        image = contact_sheet(batch(each), film_of).image
        grounds.add(image.getpixel((28 + 4, 92 + 60)))
    assert len(grounds) == 5


def test_the_reason_of_a_failure_stands_in_its_tile():
    plain = contact_sheet(batch(job(1, status="pending")), landscape).image
    told = contact_sheet(batch(job(1, status="failed", error="timeout")), landscape).image
    box = (28, 92, 28 + 240, 92 + 135)
    dark = [sum(image.crop(box).convert("L").histogram()[:100]) for image in (plain, told)]
    assert dark[1] > 2 * dark[0]


@pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="only Linux tells there whether a thread sleeps")
def test_ctrl_c_waits_for_no_store_that_is_silent():
    asked, released, main = threading.Event(), threading.Event(), threading.get_ident()

    def silent(_job):
        asked.set()
        released.wait(20)
        raise OSError("gone")

    looks = deque(maxlen=3)

    def waits():
        sleeps = Path("/proc/self/stat").read_text().rpartition(")")[2].split()[0] == "S"
        stack = {each.name for each in traceback.extract_stack(sys._current_frames()[main])}
        looks.append(sleeps and "_result_or_cancel" in stack)
        return len(looks) == 3 and all(looks)

    def interrupt():
        asked.wait(20)
        until(waits)  # a signal just before the main thread sleeps, or while it waits for the GIL, would not wake it
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    began = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            contact_sheet(batch(job(1)), silent)
        assert time.monotonic() - began < 15
    finally:
        released.set()


def test_takes_stand_side_by_side():
    jobs = [job(number + 1, take=number % 3 + 1) for number in range(6)]
    assert [len(group) for group in sheet._takes([sheet.Tile(each, "", None, None) for each in jobs])] == [3, 3]
    tiles = [sheet.Tile(each, "", None, None) for each in jobs]
    size = sheet.TileSize.of(tiles)
    for columns in (3, 6):
        rows = {(tile.job.index - 1) // 3: row for tile, _, row in sheet._places(list(sheet._takes(tiles)), columns)}
        assert set(rows.values()) == ({0, 1} if columns == 3 else {0})
    assert sheet._columns(6, 3, size) % 3 == 0
    one_more = [*tiles, sheet.Tile(job(7), "", None, None)]
    assert [place[1:] for place in sheet._places(list(sheet._takes(one_more)), 4)] == [
        (0, 0), (1, 0), (2, 0), (0, 1), (1, 1), (2, 1), (3, 1),
    ]  # fmt: skip


def test_ten_thousand_videos_have_pages(monkeypatch):
    whole = batch(*(job(number + 1, status="pending") for number in range(10_000)))
    assert page_count(whole) == 84
    last = contact_sheet(whole, landscape, 84)
    assert (last.page, last.pages) == (84, 84)
    assert max(last.image.size) < 16_384  # what WebP can hold
    with pytest.raises(InvalidRequest, match="from 1 to 84"):
        contact_sheet(whole, landscape, 85)


def test_long_text_is_cut_and_stays_within_its_width():
    text = Lettering(16)
    for words in WORDS:
        lines = text.wrap(words, 200, 3)
        assert len(lines) <= 3
        assert all(text.width(line) <= 200 for line in lines), words
    assert text.wrap("x" * 5000, 200, 3)[-1].endswith("…")
    assert text.wrap("a short one", 200, 3) == ["a short one"]
    assert "".join(text.wrap("one two three", 60, 5)).replace(" ", "") == "onetwothree"


def test_without_any_font_pillows_own_is_used_and_what_it_lacks_is_told(monkeypatch):
    monkeypatch.setattr(lettering, "_folders", list)
    for cached in (lettering._faces, lettering._face_for):
        cached.cache_clear()
    try:
        drawn = contact_sheet(batch(job(1, "Sea 日落")), landscape)
        assert drawn.missing == {"日", "落"}
    finally:
        for cached in (lettering._faces, lettering._face_for):
            cached.cache_clear()
