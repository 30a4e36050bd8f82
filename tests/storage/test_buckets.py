"""Buckets, against two S3 servers that others wrote: objects are whole, and none is replaced."""

import hashlib
import os
import signal
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest

from storage.bucket_client import BucketOptions
from storage.bucket_errors import StoreFault, explained
from storage.buckets import PART, Bucket, Stopped
from storage.stores import Stores
from tests.servers.s3 import BUCKET, Fault, Gate, Kind, S3Server

pytestmark = pytest.mark.integration
SMALL, LARGE = 100_000, 2 * PART + 12_345


@pytest.fixture(params=["moto", "rclone"])
def server(request: pytest.FixtureRequest) -> S3Server:
    kind: Kind = request.param
    return request.getfixturevalue(kind)


@pytest.fixture
def gate(server: S3Server) -> Iterator[Gate]:
    gate = Gate(server)
    yield gate
    gate.close()


def opened(settings: dict[str, str], **changes: str) -> Bucket:
    settings = settings | changes
    return Bucket(settings.pop("VIDEO_STORE"), BucketOptions(settings))


@pytest.fixture
def bucket(gate: Gate, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    return opened(gate.settings(f"of/{abs(hash(request.node.name))}"))


@pytest.fixture
def film(tmp_path: Path) -> Callable[[int], tuple[Path, str]]:
    def film(size: int) -> tuple[Path, str]:
        path = tmp_path / f"{size}.part"
        path.write_bytes(os.urandom(size))
        return path, hashlib.sha256(path.read_bytes()).hexdigest()

    return film


Film = Callable[[int], tuple[Path, str]]


def put(bucket: Bucket, film: tuple[Path, str], stopped: Callable[[], bool] = lambda: False, *doomed: str) -> str:
    return bucket.put(film[0], "nature-01", "video/mp4", film[1], doomed, stopped)


@pytest.mark.parametrize("size", [1, SMALL, PART, PART + 1, LARGE])
def test_a_file_is_put_whole_and_read_again_in_part(bucket: Bucket, gate: Gate, film: Film, size: int) -> None:
    path, digest = film(size)
    uri = put(bucket, (path, digest))
    assert uri == f"{bucket.uri}/nature/nature-01-{digest[:8]}.mp4"
    assert (bucket.size(uri), bucket.uris("nature"), bucket.batch_ids()) == (size, [uri], ["nature"])
    assert b"".join(bucket.read(uri)) == path.read_bytes()
    assert (
        b"".join(bucket.read(uri, size // 2, size // 2 + 70_000)) == path.read_bytes()[size // 2 : size // 2 + 70_000]
    )
    assert b"".join(bucket.read(uri, size // 3)) == path.read_bytes()[size // 3 :]
    assert list(bucket.read(uri, 5, 5)) == []
    assert gate.server.open_uploads() == 0


def test_an_object_with_the_same_bytes_is_not_put_again(bucket: Bucket, gate: Gate, film: Film) -> None:
    made = film(SMALL)
    uri = put(bucket, made)
    gate.asked.clear()
    assert put(bucket, made) == uri
    assert {method for method, _ in gate.asked} == {"HEAD"}


@pytest.mark.parametrize("size", [SMALL, SMALL + 1])
def test_other_bytes_keep_their_name(bucket: Bucket, film: Film, tmp_path: Path, size: int) -> None:
    made = film(SMALL)
    uri = put(bucket, made)
    other = tmp_path / "other"
    other.write_bytes(bytes(size))
    bucket.remove(uri)
    assert bucket.restore(other, uri, "video/mp4", size, hashlib.sha256(bytes(size)).hexdigest())
    longer = put(bucket, made)
    assert longer == uri.replace(made[1][:8], made[1][:16])
    assert (b"".join(bucket.read(uri)), b"".join(bucket.read(longer))) == (bytes(size), made[0].read_bytes())
    assert not bucket.restore(made[0], uri, "video/mp4", SMALL, made[1])


def test_a_doomed_address_is_not_used(bucket: Bucket, film: Film) -> None:
    made = film(SMALL)
    uri = f"{bucket.uri}/nature/nature-01-{made[1][:8]}.mp4"
    assert put(bucket, made, lambda: False, uri) == uri.replace(made[1][:8], made[1][:16])
    assert bucket.size(uri) is None


def test_an_object_is_removed_once(bucket: Bucket, film: Film) -> None:
    uri = put(bucket, film(SMALL))
    bucket.remove(uri)
    bucket.remove(uri)
    assert (bucket.size(uri), bucket.uris("nature")) == (None, [])
    with pytest.raises(FileNotFoundError):
        bucket.read(uri)


def test_the_objects_of_a_batch_are_removed_and_no_others(bucket: Bucket, film: Film) -> None:
    uri = put(bucket, film(SMALL))
    other = bucket.put(*film(10)[:1], "nature-like-01", "video/webm", film(10)[1], (), lambda: False)
    bucket.remove_batch("nature")
    assert (bucket.size(uri), bucket.size(other)) == (None, 10)


def test_a_presigned_url_gives_the_file_for_a_while(bucket: Bucket, gate: Gate, film: Film) -> None:
    path, digest = film(SMALL)
    url = bucket.presigned(put(bucket, (path, digest)), timedelta(hours=1))
    with urllib.request.urlopen(url, timeout=10) as answer:
        assert answer.read() == path.read_bytes()
        assert answer.headers["Content-Type"] == "video/mp4"
    head = bucket.presigned(bucket.uris("nature")[0], timedelta(hours=1), "HEAD")
    with urllib.request.urlopen(urllib.request.Request(head, method="HEAD"), timeout=10) as answer:
        assert answer.headers["Content-Length"] == str(SMALL)


def test_whatever_is_asked_of_a_uri_is_asked_of_its_bucket(
    bucket: Bucket, gate: Gate, film: Film, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = put(bucket, film(SMALL))
    stores = Stores(str(tmp_path), options=lambda _: BucketOptions(gate.settings("")))
    assert (stores.size(uri), len(b"".join(stores.read(uri)))) == (SMALL, SMALL)
    assert str(stores.presigned(uri, timedelta(hours=1))).startswith(f"http://127.0.0.1:{gate.port}/{BUCKET}/")
    stores.remove(uri)
    assert stores.size(uri) is None


# --- what goes wrong


@pytest.mark.parametrize("where", ["partNumber=2", "uploadId=[^&]*$"])
def test_an_upload_that_fails_in_the_middle_is_aborted(bucket: Bucket, gate: Gate, film: Film, where: str) -> None:
    method = "PUT" if where.startswith("part") else "POST"
    gate.fault(Fault(method, where, 403, "AccessDenied"))
    with pytest.raises(StoreFault, match=r"refused access .*AWS_ACCESS_KEY_ID") as caught:
        put(bucket, film(LARGE))
    assert not caught.value.passing
    assert (gate.server.open_uploads(), bucket.uris("nature")) == (0, [])
    gate.mend()
    put(bucket, film(LARGE))


@pytest.mark.parametrize("server", ["moto"], indirect=True)
def test_ctrl_c_waits_for_no_store_that_is_silent(bucket: Bucket, gate: Gate, film: Film) -> None:
    uri = put(bucket, film(SMALL))
    silent = gate.fault(Fault("GET", r"\.mp4", held=threading.Event()))

    def interrupt() -> None:
        silent.met.wait(30)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        bucket.read(uri)
    assert time.monotonic() - began < 20  # the store would answer after 30


def test_an_upload_that_is_stopped_is_aborted(bucket: Bucket, gate: Gate, film: Film) -> None:
    stop = threading.Event()
    blocks = iter(range(10))

    def stopped() -> bool:
        if next(blocks) == 2:
            stop.set()
        return stop.is_set()

    with pytest.raises(Stopped):
        put(bucket, film(LARGE), stopped)
    assert (gate.server.open_uploads(), bucket.uris("nature")) == (0, [])


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_an_upload_whose_connection_is_cut_is_sent_again(bucket: Bucket, gate: Gate, film: Film, size: int) -> None:
    gate.fault(Fault("PUT", r"\.mp4", None, times=1))
    path, digest = film(size)
    assert b"".join(bucket.read(put(bucket, (path, digest)))) == path.read_bytes()
    assert gate.server.open_uploads() == 0


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_an_answer_that_is_lost_costs_nothing(bucket: Bucket, gate: Gate, film: Film, size: int) -> None:
    gate.fault(Fault("PUT", r"\.mp4", None, times=1, after=True))
    path, digest = film(size)
    assert b"".join(bucket.read(put(bucket, (path, digest)))) == path.read_bytes()


@pytest.mark.parametrize("times", [1, 9])
def test_an_end_of_an_upload_whose_answer_is_lost_is_found_by_the_next_attempt(
    bucket: Bucket, gate: Gate, film: Film, times: int
) -> None:
    gate.fault(Fault("POST", "uploadId=", None, times=times, after=True))
    path, digest = film(LARGE)
    try:
        uri = put(bucket, (path, digest))
    except StoreFault as fault:  # it was completed, and asked for again: moto alone answers that it is
        if not fault.passing:
            raise
        sent = len(gate.asked)
        uri = put(bucket, (path, digest))
        assert [method for method, _ in gate.asked[sent:] if method != "HEAD"] == []
    assert b"".join(bucket.read(uri)) == path.read_bytes()
    assert bucket.uris("nature") == [uri]


@pytest.mark.parametrize(
    ("status", "code", "passing", "words"),
    [
        (503, "SlowDown", True, r"can't do it just now \(HTTP 503, SlowDown, told by the gate\)"),
        (507, "InsufficientStorage", True, r"just now \(HTTP 507, .*; its disk is full\)"),
        (500, "InternalError", True, r"just now \(HTTP 500"),
        (
            403,
            "AccessDenied",
            False,
            r"refused access \(HTTP 403, AccessDenied, told by the gate\): check AWS_ACCESS_KEY_ID",
        ),
        (404, "NoSuchBucket", False, r"does not exist: create it, or correct VIDEO_STORE"),
        (404, "NoSuchUpload", True, r"has no such upload any more \(HTTP 404, .*\): it is sent again"),
        (400, "InvalidBlockList", True, r"has no such upload any more \(HTTP 400, .*\): it is sent again"),
        (301, "PermanentRedirect", False, r"is in another region.*: set AWS_REGION"),
        (400, "AuthorizationHeaderMalformed", False, r"is in another region .*: set AWS_REGION"),
        (400, "InvalidDigest", False, r"HTTP 400, InvalidDigest"),
    ],
)
def test_a_fault_is_named_with_its_way_out(
    bucket: Bucket, gate: Gate, film: Film, status: int, code: str, passing: bool, words: str
) -> None:
    gate.fault(Fault("PUT", r"\.mp4", status, code))
    with pytest.raises(StoreFault, match=words) as caught:
        put(bucket, film(SMALL))
    assert caught.value.passing is passing
    assert f"the bucket {BUCKET} at http://127.0.0.1:{gate.port}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_server_that_is_not_there_is_worth_waiting_for(bucket: Bucket, gate: Gate, film: Film) -> None:
    nowhere = opened(gate.settings("x"), AWS_ENDPOINT_URL="http://127.0.0.1:1")
    with pytest.raises(StoreFault, match=r"can't be reached .*: check AWS_ENDPOINT_URL") as caught:
        put(nowhere, film(SMALL))
    assert caught.value.passing


@pytest.mark.parametrize(
    ("uri", "given", "words"),
    [
        (
            "s3://films/x",
            {"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:1", "AWS_SKIP_SIGNATURE": "true"},
            "AWS_ENDPOINT_URL",
        ),
        ("gs://films/x", {"GOOGLE_BASE_URL": "http://127.0.0.1:1", "GOOGLE_SKIP_SIGNATURE": "true"}, "GOOGLE_BASE_URL"),
        (
            "az://films/x",
            {"AZURE_STORAGE_ENDPOINT": "http://127.0.0.1:1/a", "AZURE_STORAGE_ACCOUNT_NAME": "a"}
            | {"AZURE_STORAGE_ACCOUNT_KEY": "Zm9v"},
            "AZURE_STORAGE_ENDPOINT",
        ),
    ],
)
def test_the_endpoint_is_named_by_the_variable_of_its_kind(uri: str, given: dict[str, str], words: str) -> None:
    """Plain HTTP is allowed by naming it, whichever variable does."""
    with pytest.raises(StoreFault, match=rf"at http://127.0.0.1:1 can't be reached .*: check {words} and the network"):
        Bucket(uri, BucketOptions(given)).size(f"{uri}/b/b-01.mp4")


def test_another_region_is_said_where_the_answer_is_not_shown() -> None:
    """Amazon's 301 names no Location: obstore tells of that, and not of the answer."""
    met = ValueError(
        "Generic S3 error: Error performing GET http://127.0.0.1:1/films in 1ms - Received redirect without LOCATION, "
        "this normally indicates an incorrectly configured region"
    )
    told = "the bucket films at http://127.0.0.1:1 is in another region: set AWS_REGION to it"
    assert str(explained("s3://films/x", met)) == told


def test_the_endpoint_of_s3_alone_comes_before_that_of_all_services(server: S3Server, film: Film) -> None:
    given = server.settings("x")
    given |= {"AWS_ENDPOINT_URL_S3": given["AWS_ENDPOINT_URL"], "AWS_ENDPOINT_URL": "http://127.0.0.1:1"}
    put(opened(given), film(SMALL))


def test_credentials_that_sign_no_urls_are_said_to(bucket: Bucket, film: Film, monkeypatch: pytest.MonkeyPatch) -> None:
    signed = {"AZURE_STORAGE_ACCOUNT_NAME": "a", "AZURE_STORAGE_SAS_TOKEN": "sv=2023-11-03&sig=x"}
    other = Bucket("az://films/x", BucketOptions(signed))
    with pytest.raises(StoreFault, match="the credentials sign no URLs"):
        other.presigned("az://films/x/b/b-01.mp4", timedelta(hours=1))
    monkeypatch.setattr(bucket, "presigned", lambda _, lifetime: other.presigned("az://films/x/b/b-01.mp4", lifetime))
    assert "sign no URLs" in bucket.examine()[0]
    assert bucket.examine()[0].endswith(", so a service sends the files itself")


def test_a_wrong_key_is_named(rclone: S3Server, film: Film) -> None:
    wrong = opened(rclone.settings("x"), AWS_SECRET_ACCESS_KEY="some-other-secret")
    with pytest.raises(StoreFault, match=r"refused access \(HTTP 403\): check AWS_ACCESS_KEY_ID") as caught:
        put(wrong, film(SMALL))
    assert "some-other-secret" not in str(caught.value)


def test_a_bucket_that_is_not_there_is_named(server: S3Server, film: Film) -> None:
    missing = Bucket("s3://nothing/x", BucketOptions(server.settings("x")))
    with pytest.raises(StoreFault, match=r"the bucket nothing .* does not exist"):
        put(missing, film(SMALL))


def test_what_arrived_otherwise_is_noticed(bucket: Bucket, gate: Gate, film: Film) -> None:
    """A server that takes the bytes and keeps none of them is believed by its HEAD, not by its answer."""
    gate.fault(Fault("PUT", r"\.mp4", 200, times=1))
    with pytest.raises(StoreFault, match=r"has None bytes instead of") as caught:
        put(bucket, film(SMALL))
    assert caught.value.passing
    put(bucket, film(SMALL))


def test_options_of_other_programs_do_no_harm(server: S3Server, film: Film) -> None:
    other = opened(
        server.settings("other"),
        AWS_PROFILE="x",
        AWS_CA_BUNDLE="/x",
        GOOGLE_X="y",
        AWS_ALLOW_HTTP="true",
        AWS_TIMEOUT="20s",
    )
    put(other, film(SMALL))


@pytest.mark.parametrize("server", ["moto"], indirect=True)  # rclone ignores the condition
def test_processes_that_mark_a_bucket_at_once_agree(bucket: Bucket, gate: Gate) -> None:
    first = gate.fault(Fault("PUT", r"\.sora-batch", held=(go_on := threading.Event()), times=1))
    with ThreadPoolExecutor(1) as another:
        late = another.submit(bucket.prepare, "this-database")
        assert first.met.wait(30)
        marker = bucket.prepare("this-database")
        go_on.set()
        assert late.result() == marker == bucket.prepare("this-database")


def test_a_server_that_refuses_the_condition_is_marked_without_it(bucket: Bucket, gate: Gate) -> None:
    gate.fault(Fault("PUT", r"\.sora-batch", 400, "InvalidArgument", times=1))
    assert bucket.prepare("this-database") == bucket.prepare("another")
