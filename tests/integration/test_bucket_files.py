"""Files of a bucket for everybody else: fetched, answered over HTTP, drawn, and removed when they are old."""

import hashlib
import io
import os
import threading
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
from PIL import Image

from actors.batch.views import Batch
from actors.fetching.fetch import Fetcher
from actors.media.frames import film_of
from actors.media.sheet import contact_sheet
from actors.service import BatchService
from actors.settings import Settings
from actors.simulator import SimulatorOptions
from actors.web.listener import Listener
from storage.stores import Stores
from tests.actors.web.conftest import Answer, Client
from tests.integration.support import PATIENCE, until
from tests.servers.s3 import Gate, s3_server
from tests.servers.simulator import simulator_in_thread

pytestmark = pytest.mark.integration
ONE = "/api/v1/batches/nature/jobs/1"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BatchService]:
    """A service whose store is a bucket, and its finished batch `nature`."""
    folder = tmp_path_factory.mktemp("bucket")
    options = SimulatorOptions(latency=(0.0, 0.05))
    with (
        s3_server("moto", folder / "s3") as server,
        simulator_in_thread(options) as (_, url),
        pytest.MonkeyPatch.context() as patch,
    ):
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        gate = Gate(server)
        given = gate.settings("films")
        for name, value in given.items():
            if name.startswith("AWS_"):
                patch.setenv(name, value)
        settings = Settings(
            _env_file=None, openai_base_url=url, sora_poll_interval="20", video_store=given["VIDEO_STORE"],
            database_url=f"sqlite:///{folder}/batches.db", video_dir=str(folder / "videos"),
        )  # fmt: skip
        with BatchService(settings) as service:
            videos = [{"prompt": prompt, "seconds": 1, "size": "64x64"} for prompt in ("A boat", "The sea")]
            for batch_id in ("nature", "old"):
                service.create_batch({"id": batch_id, "videos": videos})
                service.process_batch(batch_id).result(PATIENCE)
            yield service
        gate.close()


@pytest.fixture
def batch(service: BatchService) -> Batch:
    return service.get_batch_status("nature")


@pytest.fixture(scope="module")
def ask(service: BatchService) -> Iterator[Client]:
    listener = Listener(service, "127.0.0.1:0", "secret")
    yield Client(listener.port, "secret")
    listener.close()


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_files_are_fetched_from_the_bucket(service: BatchService, batch: Batch, tmp_path: Path) -> None:
    report = service.fetch("nature", tmp_path)
    assert report.complete
    job = batch.jobs[0]
    assert job.video is not None
    gone = job.model_copy(update={"video": job.video.model_copy(update={"uri": f"{job.video.uri}.gone"})})
    fetcher = Fetcher(tmp_path / "gone", service.settings, service.stores)
    (problem,) = fetcher.fetch(batch.model_copy(update={"jobs": [gone]})).problems
    assert problem.message == (
        f"{job.video.uri}.gone: no such object; "
        "`sora-batch retry nature --missing` fetches it again, if the server still has it"
    )
    for file, job in zip(report.files, batch.jobs, strict=True):
        assert job.video is not None
        assert digest(Path(file.path).read_bytes()) == job.video.sha256


def test_a_program_is_sent_to_the_bucket_and_needs_no_token_there(ask: Client, batch: Batch) -> None:
    answer = ask(f"{ONE}/video")
    assert (answer.status, answer.body) == (302, b"")
    video = batch.jobs[0].video
    assert video is not None
    with urllib.request.urlopen(answer.headers["Location"], timeout=10) as signed:
        assert digest(signed.read()) == video.sha256
    head = ask(f"{ONE}/video", method="HEAD").headers["Location"]
    with urllib.request.urlopen(urllib.request.Request(head, method="HEAD"), timeout=10) as signed:
        assert signed.headers["Content-Length"] == str(video.bytes)
    assert ask(f"{ONE}/video", If_None_Match=f'"{video.sha256}"').status == 304


def test_where_nothing_is_signed_the_file_is_sent(
    batch: Batch, service: BatchService, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def fails(uri: str, *_: object) -> str:
        asked.append(uri)
        raise OSError("these credentials can't sign")

    video = batch.jobs[0].video
    assert video is not None
    listener = Listener(service, "127.0.0.1:0", "secret")
    try:
        ask = Client(listener.port, "secret")
        with monkeypatch.context() as patch:
            patch.setattr(service.stores.bucket, "presigned", fails)
            for _ in range(2):  # to learn that nothing is signed may take seconds: not for each file
                answer = ask(f"{ONE}/video")
                assert (answer.status, digest(answer.body)) == (200, video.sha256)
        assert asked == [video.uri]
        monkeypatch.setattr("actors.web.files._UNSIGNED", 0.0)
        assert ask(f"{ONE}/video").status == 302
    finally:
        listener.close()


def test_an_object_that_is_gone_or_overwritten_is_told_instead_of_redirected_to(
    ask: Client, service: BatchService, monkeypatch: pytest.MonkeyPatch
) -> None:
    for size, problem in ((7, (409, "conflict")), (None, (404, "not_found"))):
        monkeypatch.setattr(service.stores.bucket, "size", lambda _, size=size: size)
        assert ask(f"{ONE}/video").problem == problem


def browser_of(ask: Client) -> Callable[..., Answer]:
    login = ask.form("/login", token="secret", next="/")
    cookie = login.headers["Set-Cookie"].partition(";")[0]
    return partial(Client(int(ask.url.rpartition(":")[2])), Cookie=cookie)


def test_a_browser_gets_the_file_itself(ask: Client, batch: Batch) -> None:
    browser = browser_of(ask)
    answer = browser(f"{ONE}/video")
    video = batch.jobs[0].video
    assert video is not None
    assert (answer.status, digest(answer.body)) == (200, video.sha256)
    assert browser(f"{ONE}/video", Range="bytes=4-7").body == b"ftyp"


def test_of_many_browsers_each_holds_little(
    service: BatchService, ask: Client, batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser, asked, go_on, read = browser_of(ask), list[int](), threading.Event(), service.stores.read

    def slow(uri: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        assert end is not None
        asked.append(end - start)
        if len(asked) == 1:
            go_on.wait(PATIENCE)
        return read(uri, start, end)

    monkeypatch.setattr(service.stores, "read", slow)
    monkeypatch.setattr("actors.web.files._MANY", 1)
    monkeypatch.setattr("actors.web.files._PIECE_OF_A_FOLDER", 1024)
    with ThreadPoolExecutor() as pool:
        one = pool.submit(browser, f"{ONE}/video")
        try:
            until(lambda: asked)
            two = browser(f"{ONE}/video")
        finally:
            go_on.set()
    video = batch.jobs[0].video
    assert video is not None
    assert (asked[0], set(asked[1:-1])) == (video.bytes, {1024})
    assert digest(one.result().body) == digest(two.body) == video.sha256


def test_a_machine_without_the_bucket_fetches_through_the_service(
    ask: Client, batch: Batch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "none")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "none")
    settings = Settings(_env_file=None, web_public_url=ask.url, web_token="secret", video_dir=str(tmp_path))
    report = Fetcher(tmp_path / "films", settings, Stores(str(tmp_path))).fetch(batch)
    assert report.complete, report.problems


def test_films_of_the_bucket_are_drawn(service: BatchService, ask: Client, batch: Batch) -> None:
    with Image.open(io.BytesIO(ask(f"{ONE}/poster").body)) as image:
        assert image.size == (64, 64)
    drawn = contact_sheet(batch, film_of(service.stores)).image
    none = contact_sheet(batch.model_copy(update={"jobs": []}), film_of(service.stores)).image
    assert drawn.size != none.size


def test_objects_of_an_old_batch_are_removed_and_no_others(service: BatchService, batch: Batch) -> None:
    bucket = service.stores.bucket
    assert bucket is not None
    assert len(bucket.uris("old")) == 2
    ended = "UPDATE batches SET completed_at=completed_at - 7200 WHERE id='old'"
    service._write(lambda: service._database.execute(ended))
    assert service.remove_files(timedelta(hours=1)) == 2
    assert (bucket.uris("old"), len(bucket.uris("nature"))) == ([], 2)
    videos = [job.video for job in service.get_batch_status("old").jobs]
    assert all(video is not None and video.removed_at and video.url is None for video in videos)
    assert service._read(service._storage.doomed.batch_ids) == []
    assert service.remove_files(timedelta(hours=1)) == 0
