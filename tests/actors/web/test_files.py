"""Files, posters and contact sheets over HTTP: real films, real requests."""

import hashlib
import io
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from actors.cli.app import app
from actors.fetching.fetch import Fetcher
from actors.service import BatchService
from actors.settings import Settings
from actors.simulator import SimulatorOptions
from actors.web.listener import Listener
from storage.stores import Stores
from tests.actors.web.conftest import Client
from tests.servers.simulator import simulator_in_thread

VIDEO = {"seconds": 1, "size": "64x64"}
ONE = "/api/v1/batches/nature/jobs/1"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A service whose batch `nature` has two finished videos and a failed one."""
    folder = tmp_path_factory.mktemp("made")
    places = {"database_url": f"sqlite:///{folder}/batches.db", "video_dir": str(folder / "videos")}
    options = SimulatorOptions(latency=(0.0, 0.05), moderation=("blood",))
    with (
        simulator_in_thread(options) as (_, url),
        BatchService(Settings(_env_file=None, openai_base_url=url, sora_poll_interval="20", **places)) as service,
    ):
        videos = [{"prompt": prompt, **VIDEO} for prompt in ("A boat", "The sea", "blood")]
        service.create_batch({"id": "nature", "videos": videos})
        service.create_batch({"id": "later", "videos": [{"prompt": "Later"}]})
        service.process_batch("nature").result(60)
        yield service


@pytest.fixture(scope="module")
def ask(made):
    listener = Listener(made, "127.0.0.1:0", "secret")
    yield Client(listener.port, "secret")
    listener.close()


@pytest.fixture
def film(made):
    video = made.get_batch_status("nature").jobs[0].video
    return Path(video.path).read_bytes()


def test_a_file_is_answered_whole(ask, film):
    answer = ask(f"{ONE}/video")
    assert (answer.status, answer.body) == (200, film)
    headers = answer.headers
    assert headers["Content-Type"] == "video/mp4"
    assert headers["ETag"] == f'"{hashlib.sha256(film).hexdigest()}"'
    assert "immutable" in headers["Cache-Control"]
    assert headers["Content-Disposition"] == 'inline; filename="nature-01.mp4"'
    assert headers["Accept-Ranges"] == "bytes"
    head = ask(f"{ONE}/video", method="HEAD")
    assert (head.status, head.body, head.headers["Content-Length"]) == (200, b"", str(len(film)))


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [
        ("0-", 0, None),
        ("0-0", 0, 1),
        ("5-14", 5, 15),
        ("100-999999999", 100, None),
        ("-7", -7, None),
        ("-999999999", 0, None),
    ],
)
def test_a_part_of_a_file(ask, film, asked, start, end):
    answer = ask(f"{ONE}/video", Range=f"bytes={asked}")
    assert (answer.status, answer.body) == (206, film[start:end])
    first = start % len(film)
    last = len(film) - 1 if end is None else end - 1
    assert answer.headers["Content-Range"] == f"bytes {first}-{last}/{len(film)}"


@pytest.mark.parametrize("asked", ["bytes=999999999-", "bytes=-0", "bytes=9-3"])
def test_a_part_that_is_outside(ask, film, asked):
    answer = ask(f"{ONE}/video", Range=asked)
    assert answer.problem == (416, "invalid_request")
    assert answer.headers["Content-Range"] == f"bytes */{len(film)}"


@pytest.mark.parametrize("asked", ["bytes=0-1,5-6", "lines=1-2", "bytes=", "bytes=-", "bytes=a-b", "5-6"])
def test_what_is_no_single_range_is_the_whole_file(ask, film, asked):
    assert ask(f"{ONE}/video", Range=asked).body == film


def test_what_is_known_is_not_sent_again(ask, film):
    etag = ask(f"{ONE}/video").headers["ETag"]
    for known in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        answer = ask(f"{ONE}/video", If_None_Match=known)
        assert (answer.status, answer.body, answer.headers["ETag"]) == (304, b"", etag)
    assert ask(f"{ONE}/video", If_None_Match='"other"').status == 200
    assert ask(f"{ONE}/video", Range="bytes=0-1", If_Range=etag).status == 206
    assert ask(f"{ONE}/video", Range="bytes=0-1", If_Range='"other"').body == film


def test_a_range_counts_for_get_alone_and_only_once(ask, film):
    for asked in ("bytes=0-1", "bytes=999999999-"):
        head = ask(f"{ONE}/video", method="HEAD", Range=asked)
        assert (head.status, head.headers["Content-Length"]) == (200, str(len(film)))
        assert "Content-Range" not in head.headers
    assert ask(f"{ONE}/video", Range="BYTES=0-1").body == film[:2]
    two = f"GET {ONE}/video HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer secret\r\nRange: bytes=0-1\r\nRange: bytes=4-5\r\n\r\n"
    with socket.create_connection(("127.0.0.1", int(ask.url.rpartition(":")[2]))) as line:
        line.sendall(two.encode())
        assert line.recv(20).startswith(b"HTTP/1.1 200 ")


def test_a_file_is_sent_only_if_it_is_the_one_that_is_meant(ask, film):
    etag = ask(f"{ONE}/video").headers["ETag"]
    for other in ('"other"', f"W/{etag}"):  # a weak tag is not known to be of the same bytes
        for method in ("GET", "HEAD"):
            answer = ask(f"{ONE}/video", method=method, If_Match=other, If_None_Match=etag, Range="bytes=0-1")
            assert (answer.status, answer.headers["ETag"]) == (412, etag)
    assert ask(f"{ONE}/video", If_Match='"other"').problem == (412, "conflict")
    for meant in ("*", f'"other", {etag}'):
        assert ask(f"{ONE}/video", If_Match=meant).body == film
    assert ask(f"{ONE}/video", If_Match=etag, Range="bytes=2-4").body == film[2:5]


@pytest.mark.parametrize("what", ["video", "poster"])
def test_what_has_no_file_says_why(ask, what):
    assert ask(f"/api/v1/batches/nothing/jobs/1/{what}").problem == (404, "not_found")
    assert ask(f"/api/v1/batches/nature/jobs/9/{what}").problem == (404, "not_found")
    assert ask(f"/api/v1/batches/nature/jobs/x/{what}").problem == (404, "not_found")
    assert ask(f"/api/v1/batches/nature/jobs/3/{what}").problem == (409, "conflict")
    assert ask(f"/api/v1/batches/later/jobs/1/{what}").problem == (409, "conflict")
    assert Client(int(ask.url.rpartition(":")[2]))(f"{ONE}/{what}").problem == (401, "authentication")


def test_a_file_that_is_gone_or_overwritten_is_told(ask, made):
    path = Path(made.get_batch_status("nature").jobs[1].video.path)
    kept, two = path.read_bytes(), "/api/v1/batches/nature/jobs/2"
    try:
        path.write_bytes(b"something else")
        for asked in ({}, {"If_None_Match": "*"}, {"If_Match": '"other"'}):
            assert ask(f"{two}/video", **asked).problem == (409, "conflict")
        assert ask(f"{two}/poster").problem == (409, "conflict")
        path.unlink()
        assert ask(f"{two}/video").problem == (404, "not_found")
        assert "--missing" in ask(f"{two}/video").json["detail"]
        assert ask(f"{two}/poster").problem == (409, "conflict")
        assert str(path.parent) not in ask(f"{two}/video").json["detail"]
    finally:
        path.write_bytes(kept)
    assert ask(f"{two}/poster").status == 200


def test_a_poster_is_the_first_frame(ask):
    answer = ask(f"{ONE}/poster")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "image/webp")
    with Image.open(io.BytesIO(answer.body)) as image:
        assert (image.format, image.size) == ("WEBP", (64, 64))
    assert ask(f"{ONE}/poster", If_None_Match=answer.headers["ETag"]).status == 304
    assert "max-age=31536000" in ask(f"{ONE}/poster?v=abc").headers["Cache-Control"]


def test_a_contact_sheet_changes_with_its_batch(ask, made):
    answer = ask("/api/v1/batches/nature/sheet")
    with Image.open(io.BytesIO(answer.body)) as image:
        assert image.format == "WEBP"
    etag = answer.headers["ETag"]
    assert ask("/api/v1/batches/nature/sheet", If_None_Match=etag).status == 304
    made.update_metadata("nature", {"changed": True})
    assert ask("/api/v1/batches/nature/sheet", If_None_Match=etag).status == 200
    beyond = ask("/api/v1/batches/nature/sheet?page=2")
    assert (beyond.problem, beyond.json["errors"][0]["field"]) == ((422, "invalid_request"), "?page")
    assert ask("/api/v1/batches/nothing/sheet").problem == (404, "not_found")


def test_without_the_extra_the_way_to_it_is_told(ask, monkeypatch):
    monkeypatch.setattr("actors.media.frames.importlib.util.find_spec", lambda name: None)
    answer = ask("/api/v1/batches/nature/jobs/2/poster")
    sheet = ask("/api/v1/batches/later/sheet")
    for each in (answer, sheet):
        if each.status != 200:  # it was drawn before
            assert each.problem == (503, "unavailable")
            assert "pip install 'sora-batch[media]'" in each.json["detail"]
    assert sheet.status == 503


def test_many_who_ask_for_one_poster_have_it_drawn_once(made, monkeypatch):
    drawn = []
    from actors.media import frames

    real = frames.poster
    monkeypatch.setattr(frames, "poster", lambda film: drawn.append(1) or real(film))
    listener = Listener(made, "127.0.0.1:0", None)
    try:
        client = Client(listener.port)
        with ThreadPoolExecutor(8) as threads:
            answers = list(threads.map(lambda _: client(f"{ONE}/poster"), range(8)))
    finally:
        listener.close()
    assert {answer.status for answer in answers} == {200}
    assert len(drawn) == 1


def test_another_machine_fetches_by_the_url(made, ask, film, tmp_path):
    batch = made.get_batch_status("nature")
    elsewhere = [
        job if job.video is None else job.model_copy(
            update={"video": job.video.model_copy(update={"uri": "file:///elsewhere/x.mp4"})}
        )
        for job in batch.jobs
    ]  # fmt: skip
    settings = Settings(_env_file=None, web_public_url=ask.url, web_token="secret")
    fetcher = Fetcher(tmp_path / "films", settings, Stores(str(tmp_path)))
    report = fetcher.fetch(batch.model_copy(update={"jobs": elsewhere}), name_of=lambda job: f"{job.id}.mp4")
    assert report.complete
    assert (tmp_path / "films" / "nature-01.mp4").read_bytes() == film


def test_the_command_needs_no_database_where_a_service_is_named(ask, film, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WEB_PUBLIC_URL", ask.url)
    call = CliRunner().invoke
    refused = call(app, ["fetch", "nature"])
    assert (refused.exit_code, "WEB_TOKEN" in refused.stderr) == (1, True)
    monkeypatch.setenv("WEB_TOKEN", "secret")
    assert call(app, ["fetch", "nature", "-o", "films"]).stdout == "films/01-a-boat.mp4\nfilms/02-the-sea.mp4\n"
    assert (tmp_path / "films" / "01-a-boat.mp4").read_bytes() == film
    unknown = call(app, ["fetch", "nothing"])
    assert (unknown.exit_code, "there is no batch 'nothing'" in unknown.stderr) == (2, True)
    monkeypatch.setenv("WEB_PUBLIC_URL", "http://127.0.0.1:9")
    away = call(app, ["fetch", "nature"])
    assert (away.exit_code, "http://127.0.0.1:9" in away.stderr) == (1, True)
    assert [path.name for path in tmp_path.iterdir()] == ["films"]


def test_a_slow_store_holds_up_no_check_of_the_health(made, monkeypatch):
    waiting, go_on = threading.Semaphore(0), threading.Event()

    def slow(*_):
        waiting.release()
        go_on.wait(30)
        raise FileNotFoundError

    monkeypatch.setattr(made.stores, "size", slow)
    monkeypatch.setattr(made.stores, "read", slow)
    listener = Listener(made, "127.0.0.1:0", None)
    client = Client(listener.port)
    try:
        with ThreadPoolExecutor(8) as threads:
            pictures = [threads.submit(client, f"/api/v1/batches/nature/jobs/{index}/poster") for index in (1, 2)]
            films = [threads.submit(client, f"{ONE}/video") for _ in range(4)]
            try:
                assert all(waiting.acquire(timeout=30) for _ in range(5))
                assert client("/livez").status == 200
                assert client("/api/v1/batches").status == 200
            finally:
                go_on.set()
            assert {each.result().status for each in films} == {404}
            assert {each.result().status for each in pictures} == {409}
    finally:
        listener.close()


def test_a_reader_that_hangs_up_does_no_harm(ask, caplog):
    for _ in range(3):
        with socket.create_connection(("127.0.0.1", int(ask.url.rpartition(":")[2]))) as line:
            line.sendall(f"GET {ONE}/video HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer secret\r\n\r\n".encode())
            line.recv(10)
    assert ask(f"{ONE}/video").status == 200
    assert not [record for record in caplog.records if record.levelname in ("ERROR", "CRITICAL")]
