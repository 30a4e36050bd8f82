"""Files are fetched whole, from whoever has them, and nothing is replaced."""

import fcntl
import hashlib
import os
import threading
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic

import pytest

from actors.batch.job_views import VideoFile
from actors.errors import InvalidRequest
from actors.fetching.fetch import Fetcher
from actors.fetching.http import _PIECE, HttpFiles
from actors.settings import Settings
from storage.stores import Stores
from tests.actors.fetching.serving import serving
from tests.actors.media.films import batch, job
from tests.integration.support import until

FILM = os.urandom(700_000)
ELSEWHERE = "file:///elsewhere/b-01-abc.mp4"


def video(uri, content=FILM, url=None, **more):
    digest = hashlib.sha256(content).hexdigest()
    return VideoFile(uri=uri, url=url, bytes=len(content), sha256=digest, content_type="video/mp4", **more)


def made(*videos):
    return batch(*(job(number).model_copy(update={"video": each}) for number, each in enumerate(videos, 1)))


@pytest.fixture(autouse=True)
def _no_long_pauses(monkeypatch):
    monkeypatch.setattr("actors.fetching.http._FIRST_PAUSE", 0.01)


@pytest.fixture
def server():
    with serving() as state:
        yield state


@pytest.fixture
def fetcher(tmp_path):
    def make(**settings):
        given = Settings(_env_file=None, **settings)
        return Fetcher(tmp_path / "films", given, Stores(str(tmp_path / "videos")))

    return make


@pytest.fixture
def stored(tmp_path):
    def put(content=FILM, name="b-01-abc.mp4"):
        path = tmp_path / "videos" / "b" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path.as_uri()

    return put


def contents(tmp_path):
    return {path.name: path.read_bytes() for path in (tmp_path / "films").iterdir()}


def test_a_file_of_the_folder_is_copied_under_its_name_and_the_second_time_found(fetcher, stored, tmp_path):
    uri = stored()
    report = fetcher().fetch(made(video(uri)))
    assert (report.complete, [file.was_there for file in report.files]) == (True, [False])
    assert contents(tmp_path) == {"b-01-abc.mp4": FILM}
    again = fetcher().fetch(made(video(uri)))
    assert [file.was_there for file in again.files] == [True]
    assert again.files[0].path == report.files[0].path


def test_a_file_of_other_bytes_is_not_replaced(fetcher, stored, tmp_path):
    (tmp_path / "films").mkdir()
    (tmp_path / "films" / "b-01-abc.mp4").write_bytes(b"mine")
    for _ in range(2):
        report = fetcher().fetch(made(video(stored())))
        assert Path(report.files[0].path).name == "b-01-abc-2.mp4"
        assert contents(tmp_path) == {"b-01-abc.mp4": b"mine", "b-01-abc-2.mp4": FILM}


def test_two_videos_with_one_name_and_the_same_bytes_have_a_file_each(fetcher, stored, tmp_path):
    both = made(video(stored()), video(stored()))
    for _ in range(2):
        report = fetcher().fetch(both, name_of=lambda _: "film.mp4")
        assert sorted(Path(file.path).name for file in report.files) == ["film-2.mp4", "film.mp4"]
    assert set(contents(tmp_path)) == {"film-2.mp4", "film.mp4"}


def test_what_can_not_be_had_is_named_and_the_rest_is_fetched(fetcher, stored, tmp_path):
    gone, removed = f"{tmp_path.as_uri()}/gone.mp4", datetime(2026, 3, 1, tzinfo=UTC)
    damaged = stored(b"x" * len(FILM), "b-02-def.mp4")
    report = fetcher().fetch(made(video(gone), video(damaged), video(stored()), video(gone, removed_at=removed)))
    assert [file.job_id for file in report.files] == ["b-03"]
    assert [(each.job_id, each.code) for each in report.problems] == [
        ("b-01", "not_found"), ("b-02", "download_failed"), ("b-04", "not_found"),
    ]  # fmt: skip
    assert "WEB_PUBLIC_URL" in report.problems[0].message
    assert "differs from the recorded file" in report.problems[1].message
    assert "; remove that file, and `sora-batch retry b --missing` fetches it" in report.problems[1].message
    assert "removed on 2026-03-01" in report.problems[2].message
    assert set(contents(tmp_path)) == {"b-01-abc.mp4"}


def test_a_folder_that_is_not_writable_is_named_first(tmp_path):
    (tmp_path / "films").write_text("a file")
    with pytest.raises(InvalidRequest, match=r"films.*not writable"):
        Fetcher(tmp_path / "films", Settings(_env_file=None), Stores(str(tmp_path)))


def test_a_file_comes_from_its_url_where_the_folder_is_another_machines(fetcher, server, tmp_path):
    server.files["/film"] = FILM
    assert fetcher().fetch(made(video(ELSEWHERE, url=f"{server.url}/film"))).complete
    assert contents(tmp_path) == {"b-01-abc.mp4": FILM}


def test_the_service_that_the_settings_name_is_asked_where_no_url_is_told(fetcher, server, tmp_path):
    server.files["/api/v1/batches/b/jobs/1/video"], server.token = FILM, "secret"
    found = made(video(ELSEWHERE))
    refused = fetcher(web_public_url=server.url).fetch(found)
    assert (refused.problems[0].code, "WEB_TOKEN" in refused.problems[0].message) == ("authentication", True)
    assert contents(tmp_path) == {}
    assert fetcher(web_public_url=server.url, web_token="secret").fetch(found).complete


def test_the_token_goes_to_the_services_origin_only(fetcher, server):
    with serving() as bucket:
        bucket.files["/signed"] = FILM
        server.redirects = {"/film": "/moved", "/moved": f"{bucket.url}/signed"}
        own = f"{server.url}/film"
        assert fetcher(web_token="secret").fetch(made(video(ELSEWHERE, url=own))).complete
        assert [asked[1].get("Authorization") for asked in server.asked] == ["Bearer secret"] * 2
        assert [asked[1].get("Authorization") for asked in bucket.asked] == [None]
        foreign = made(video("file:///elsewhere/b-02.mp4", url=f"{bucket.url}/signed"))
        assert fetcher(web_token="secret", web_public_url=server.url).fetch(foreign).complete
        assert [asked[1].get("Authorization") for asked in bucket.asked] == [None, None]


def test_what_a_redirect_leads_to_is_named_and_no_token_asked_for_it(fetcher, server):
    """A bucket refuses a signature, or can't be reached from here: the service's token would not help."""
    with serving() as bucket:
        bucket.statuses = [403]
        server.redirects = {
            "/film": f"{bucket.url}/signed?X-Amz-Signature=abc",
            "/away": "http://127.0.0.1:1/signed?a=b",
        }
        refused, away = (
            fetcher().fetch(made(video(ELSEWHERE, url=f"{server.url}{path}"))).problems[0]
            for path in ("/film", "/away")
        )
    at = f"{server.url}/film redirects to {bucket.url}/signed, which answered with HTTP 403"
    assert (refused.code, refused.message.partition("; ")[2]) == ("permission", at)
    assert f"{server.url}/away: it redirects to http://127.0.0.1:1/signed: Connection refused" in away.message


@pytest.mark.parametrize("target", ["file:///etc/hostname", "ftp://127.0.0.1/film", "/film"])
def test_a_redirect_leads_to_http_only_and_not_for_ever(fetcher, server, target):
    server.redirects["/film"] = target
    report = fetcher().fetch(made(video(ELSEWHERE, url=f"{server.url}/film")))
    assert "redirects" in report.problems[0].message


@pytest.mark.parametrize("ranges", [True, False])
def test_a_connection_that_breaks_is_made_again_and_goes_on(fetcher, server, tmp_path, ranges):
    server.files["/film"], server.broken, server.ranges = FILM, [300_000, 100_000], ranges
    server.statuses = [503]
    assert fetcher().fetch(made(video(ELSEWHERE, url=f"{server.url}/film"))).complete
    assert contents(tmp_path) == {"b-01-abc.mp4": FILM}
    asked = [asked[1].get("Range") for asked in server.asked]
    assert asked == [None, None, "bytes=300000-", "bytes=400000-" if ranges else "bytes=100000-"]


def test_an_interrupted_fetch_is_gone_on_with(fetcher, server, tmp_path):
    server.files["/film"], server.broken = FILM, [300_000, 0, 0, 0]
    film = made(video(ELSEWHERE, url=f"{server.url}/film"))
    assert fetcher().fetch(film).problems[0].code == "network"
    (part,) = contents(tmp_path)
    assert part.endswith(".part")
    assert fetcher().fetch(film).complete
    assert server.asked[-1][1]["Range"] == "bytes=300000-"
    assert contents(tmp_path) == {"b-01-abc.mp4": FILM}


def test_a_service_that_is_busy_is_asked_for_the_batch_again(server):
    server.files["/api/v1/batches/b"], server.statuses = made(video(ELSEWHERE)).model_dump_json().encode(), [503, 429]
    asked = HttpFiles(Settings(_env_file=None, web_public_url=server.url), lambda _: None)
    assert asked.batch("b").job_ids == ["b-01"]


def test_a_line_that_breaks_often_but_gets_on_is_borne_with(fetcher, server, tmp_path):
    film = FILM * 3
    server.files["/film"], server.broken = film, [_PIECE] * 7
    assert fetcher().fetch(made(video(ELSEWHERE, film, url=f"{server.url}/film"))).complete
    assert contents(tmp_path) == {"b-01-abc.mp4": film}


def test_a_file_that_ends_early_is_said_to(fetcher, server):
    server.files["/film"] = FILM[:1000]
    report = fetcher().fetch(made(video(ELSEWHERE, url=f"{server.url}/film")))
    assert "/film ends after 1000 of 700000 bytes" in report.problems[0].message


def test_an_interruption_waits_for_no_server(fetcher, server, stored, tmp_path):
    """Ctrl-C comes while one server has sent a part and is silent since: the part stays, to be gone on with."""
    server.files["/film"], server.broken, server.held = FILM, [1000], threading.Event()
    slow, quick = video(ELSEWHERE, url=f"{server.url}/film"), video(stored())

    def interrupt(_):
        until(lambda: any(path.stat().st_size == 1000 for path in (tmp_path / "films").glob(".*.part")))
        raise KeyboardInterrupt

    began = monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            fetcher().fetch(made(quick, slow), interrupt)
        assert monotonic() - began < 10
    finally:
        server.held.set()


@pytest.mark.parametrize("left", [b"y" * 1000, b"y" * len(FILM), b"y" * (len(FILM) + 5), FILM[:-1] + b"?"], ids=len)
def test_a_part_with_other_bytes_is_begun_anew(fetcher, stored, tmp_path, left):
    film = made(video(stored()))
    (tmp_path / "films").mkdir()
    (tmp_path / "films" / f".b-01-{film.jobs[0].video.sha256[:16]}.part").write_bytes(left)
    assert fetcher().fetch(film).complete
    assert contents(tmp_path) == {"b-01-abc.mp4": FILM}


def test_a_part_that_another_process_writes_is_left_to_it(fetcher, stored, tmp_path):
    film = made(video(stored()))
    (tmp_path / "films").mkdir()
    part = tmp_path / "films" / f".b-01-{film.jobs[0].video.sha256[:16]}.part"
    with part.open("wb") as others:
        fcntl.flock(others, fcntl.LOCK_EX)
        others.write(b"others'")
        others.flush()
        assert fetcher().fetch(film).complete
    assert contents(tmp_path) == {"b-01-abc.mp4": FILM, part.name: b"others'"}


@pytest.mark.parametrize("body", [b"", b"short", FILM + b"more", b"x" * len(FILM)], ids=len)
def test_other_bytes_are_never_taken(fetcher, server, tmp_path, body):
    server.files["/film"] = body
    report = fetcher().fetch(made(video(ELSEWHERE, url=f"{server.url}/film")))
    assert report.problems[0].code == "download_failed"
    assert contents(tmp_path) == {}


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("file:///elsewhere/..", "b-01.mp4"),
        ("file:///elsewhere/.bashrc", "bashrc.mp4"),
        ("file:///elsewhere/%2e%2e%2f%2e%2e%2fpasswd", "passwd.mp4"),
        ("file:///elsewhere/a%0Ab%1b[31m.sh", "a-b--31m.mp4"),
        ("s3://", "b-01.mp4"),
    ],
)
def test_no_service_chooses_a_name_outside_the_folder(fetcher, server, tmp_path, uri, name):
    server.files["/film"] = FILM
    found = fetcher().fetch(made(video(uri, url=f"{server.url}/film")))
    assert [Path(file.path).relative_to(tmp_path / "films").as_posix() for file in found.files] == [name]


@pytest.mark.parametrize("wrong", [{"id": "../../evil"}, {"id": "a/b"}, {"video": {"sha256": "../x"}}])
def test_what_no_service_of_ours_tells_is_refused(fetcher, server, tmp_path, wrong):
    server.files["/film"] = FILM
    batch = made(video(ELSEWHERE, url=f"{server.url}/film"))
    (one,) = batch.jobs
    changed = {"video": one.video.model_copy(update=wrong["video"])} if "video" in wrong else wrong
    report = fetcher().fetch(batch.model_copy(update={"jobs": [one.model_copy(update=changed)]}))
    assert report.problems[0].code == "download_failed"
    assert contents(tmp_path) == {}
    assert server.asked == []


def test_a_pipe_is_not_waited_for(fetcher, tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    report = fetcher().fetch(made(video((tmp_path / "pipe.mp4").as_uri())))
    assert report.problems[0].code == "not_found"
