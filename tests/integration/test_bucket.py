"""Videos that go into a bucket: whole, checked, recorded, and told of, whatever the store and the processes do."""

import gc
import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from actors.batch.commands import CommandKey, Delete
from actors.batch.views import Batch
from actors.cli.checks import video_store
from actors.cli.serve import Housekeeping
from actors.errors import Conflict, SettingsError, SoraBatchError, StorageError
from actors.service import BatchService
from storage.buckets import PART
from storage.timing import boottime
from storage.videos import PartFile
from tests.integration.support import (
    PATIENCE,
    Drivers,
    check_journal,
    check_objects,
    check_paid_once,
    numbered,
    options_for,
    settings_from,
    until,
    videos,
)
from tests.provider.client import Provider
from tests.servers.s3 import BUCKET, Fault, Gate, Kind, S3Server

pytestmark = pytest.mark.integration
LARGE = 2 * PART + 12_345
Start = Callable[..., BatchService]


@pytest.fixture(autouse=True)
def _no_long_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.video.setbacks._LONGEST_BACKOFF", 0.05)


BOTH = pytest.mark.parametrize("server", ["moto", "rclone"], indirect=True)
"""Of the others' servers, moto tells more of what it has; what a server has a part in is tried with both."""


@pytest.fixture
def server(request: pytest.FixtureRequest) -> S3Server:
    kind: Kind = getattr(request, "param", "moto")
    return request.getfixturevalue(kind)


@pytest.fixture
def gate(server: S3Server) -> Iterator[Gate]:
    gate = Gate(server)
    yield gate
    gate.close()


@pytest.fixture
def environment(gate: Gate, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, str]:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    given = gate.settings(f"{tmp_path.parent.name}/{tmp_path.name}")
    for name, value in given.items():
        if name.startswith("AWS_"):
            monkeypatch.setenv(name, value)
    return given


@pytest.fixture
def options(provider: Provider, environment: dict[str, str], tmp_path: Path) -> Callable[..., dict[str, Any]]:
    def make(**changes: Any) -> dict[str, Any]:
        return options_for(provider.base_url, tmp_path, **{"video_store": environment["VIDEO_STORE"], **changes})

    return make


def objects(service: BatchService, batch_id: str = "b") -> list[str]:
    assert service.stores.bucket is not None
    return service.stores.bucket.uris(batch_id)


def left_here(service: BatchService) -> list[Path]:
    return [path for path in service.stores.folder.root.glob("*/*") if path.is_file()]


def make(service: BatchService, count: int = 2, **more: Any) -> Batch:
    service.create_batch(videos(*numbered(count), id="b", **more))
    return service.process_batch("b").result(PATIENCE)


@BOTH
@pytest.mark.parametrize("size", [4096, LARGE])
def test_videos_go_into_the_bucket_before_they_are_completed(
    size: int, provider: Provider, service: BatchService, gate: Gate
) -> None:
    provider.options(content_bytes=size)
    batch = make(service)
    assert [job.status for job in batch.jobs] == ["completed"] * 2
    check_objects(service, batch, provider)
    check_paid_once(provider)
    told = [event.data["job"]["video"] for event in service.history("b") if event.name == "job.completed"]
    assert sorted(each["uri"] for each in told) == objects(service)
    assert gate.server.open_uploads() == 0


@BOTH
def test_a_deleted_batch_takes_its_objects_with_it(service: BatchService) -> None:
    make(service)
    service.delete_batch("b")
    assert objects(service) == []


@pytest.mark.parametrize("way", ["retention", "deletion"])
def test_an_object_that_comes_back_too_late_is_removed_again(
    way: str, provider: Provider, service: BatchService
) -> None:
    batch = make(service)
    assert service.stores.bucket is not None
    service.stores.bucket.remove(objects(service)[1])
    provider.fault(on="content", do="hang")
    answer = service.retry_batch("b", [batch.jobs[1].id])
    provider.wait(hanging=1)
    if way == "retention":
        service.remove_files(timedelta(0))
    else:
        service.delete_batch("b")
    provider.release("requests")
    with pytest.raises(SoraBatchError, match=r"no batch 'b'|was removed meanwhile"):
        answer.result(PATIENCE)
    until(lambda: objects(service) == [])


@pytest.mark.parametrize("way", ["another deletion", "prune", "serve"])
def test_objects_that_could_not_be_removed_are_removed_later(
    way: str, service: BatchService, gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    make(service, 1)
    gate.fault(Fault("POST", r"\?delete", 403, "AccessDenied"))
    with pytest.raises(StorageError, match=r"is deleted, but not all of its files \(.* or delete it again"):
        service.delete_batch("b")
    with pytest.raises(Conflict, match=r"batch b is being deleted; try again later, or choose another id"):
        service.create_batch(videos("a lake", id="b"))
    assert service.prune(timedelta(days=1)).batches == 0
    assert "could not remove the files of a deleted batch" in caplog.text
    gate.mend()
    if way == "another deletion":
        service.delete_batch("b")
    elif way == "prune":
        assert service.prune(timedelta(days=1)).batches == 1
    else:
        with Housekeeping(service):
            until(lambda: not service._read(service._storage.batches.hidden))
    assert objects(service) == []
    service.create_batch(videos("a lake", id="b"))
    with pytest.raises(Conflict):
        service.delete_batch("b")


def test_a_deletion_that_came_as_a_command_is_accepted_though_the_bucket_is_away(
    service: BatchService, gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    make(service, 1)
    fault = gate.fault(Fault("POST", r"\?delete", 403, "AccessDenied"))
    key = CommandKey("/s", "1", "d")
    assert service.obey(Delete("b"), key, lambda _: "done") == "done"
    assert fault.met.is_set()
    assert "the files of a deleted batch are not removed yet" in caplog.text
    gate.mend()
    assert service.obey(Delete("b"), key, lambda _: "done") == "done"  # the message comes once more
    assert objects(service) == []
    assert service._read(service._storage.batches.hidden) == []


def test_a_removal_that_is_late_hits_no_file_of_a_batch_that_has_the_id_by_now(
    service: BatchService, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process is suspended while it deletes; others finish that, and make the same batch again."""
    make(service)
    bucket = service.stores.bucket
    assert bucket is not None
    slept: list[float] = []
    remove = bucket.remove

    def suspended(uri: str) -> None:
        monkeypatch.setattr(bucket, "remove", remove)
        remove(uri)
        service.finish_deletions()
        make(service)
        slept.append(3600)

    monkeypatch.setattr("actors.batch.deletion.boottime", lambda: boottime() + sum(slept))
    monkeypatch.setattr(bucket, "remove", suspended)
    service.delete_batch("b")
    check_objects(service, service.get_batch_status("b"), provider)


@BOTH
def test_what_is_gone_from_the_bucket_is_fetched_again_and_audit_names_it(
    service: BatchService, provider: Provider
) -> None:
    batch = make(service)
    video = batch.jobs[1].video
    assert video is not None
    service.stores.remove(video.uri)
    assert service.jobs_without_file("b") == ["b-02"]
    assert [(each.job_id, each.path) for each in service.audit().jobs_without_file] == [("b-02", video.uri)]
    assert service.retry_batch("b", ["b-02"]).result(PATIENCE) == batch
    check_objects(service, batch, provider)
    assert service.audit(checksums=True).clean
    assert check_paid_once(provider)["posts"] == 2


def test_audit_names_an_object_that_was_overwritten_and_one_that_nobody_records(
    service: BatchService, tmp_path: Path
) -> None:
    batch, bucket = make(service, 1), service.stores.bucket
    video, other = batch.jobs[0].video, tmp_path / "other"
    assert bucket is not None
    assert video is not None
    other.write_bytes(bytes(video.bytes))
    service.stores.remove(video.uri)
    for uri in (video.uri, f"{bucket.uri}/b/stray.mp4"):
        bucket.restore(other, uri, "video/mp4", video.bytes, "0")
    assert service.audit().jobs_without_file == []
    report = service.audit(checksums=True)
    assert [each.problem for each in report.jobs_without_file] == ["its SHA-256 differs from the recorded one"]
    assert report.files_without_job == [f"{bucket.uri}/b/stray.mp4"]


# --- the store fails


@pytest.mark.parametrize(
    ("status", "code"), [(503, "SlowDown"), (507, "InsufficientStorage"), (500, "InternalError"), (None, "")]
)
def test_a_store_that_fails_for_a_while_is_waited_for_and_nothing_downloaded_again(
    status: int | None, code: str, provider: Provider, service: BatchService, gate: Gate
) -> None:
    fault = gate.fault(Fault("PUT", r"\.mp4", status, code))
    service.create_batch(videos(*numbered(2), id="b"))
    running = service.process_batch("b")
    fault.met.wait(PATIENCE)
    until(lambda: any("can't be stored" in wait.reason for wait in service.waits("b").values()))
    gate.mend()
    check_objects(service, running.result(PATIENCE), provider)
    check_paid_once(provider)
    assert provider.summary()["requests"]["content"] == 2


def test_a_store_that_is_down_at_the_start_is_waited_for(
    provider: Provider, service: BatchService, gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    port = gate.server.port
    gate.server.port = 1
    service.create_batch(videos(*numbered(1), id="b"))
    running = service.process_batch("b")
    until(lambda: any("can't be stored" in wait.reason for wait in service.waits("b").values()))
    gate.server.port = port
    check_objects(service, running.result(PATIENCE), provider)
    assert any(getattr(record, "action", "") == "store_away" for record in caplog.records)


def test_a_store_that_refuses_ends_the_video_with_its_reason_and_a_retry_pays_nothing(
    provider: Provider, service: BatchService, gate: Gate
) -> None:
    gate.fault(Fault("PUT", r"\.mp4", 403, "AccessDenied"))
    batch = make(service, 1)
    error = batch.jobs[0].error
    assert error is not None
    assert (error.code, error.retryable) == ("storage", True)
    assert "refused access (HTTP 403, AccessDenied, told by the gate): check AWS_ACCESS_KEY_ID" in error.message
    assert left_here(service) == []
    gate.mend()
    check_objects(service, service.retry_batch("b").result(PATIENCE), provider)
    check_paid_once(provider)


def test_a_bucket_that_is_not_there_is_named_before_anything_is_paid_for(
    provider: Provider, start_service: Start
) -> None:
    service = start_service(video_store="s3://nothing/x")
    service.create_batch(videos("a lake", id="b"))
    with pytest.raises(SettingsError, match=r"VIDEO_STORE=s3://nothing/x: the bucket nothing .*does not exist"):
        service.process_batch("b")
    assert provider.summary()["posts"] == 0


@pytest.mark.parametrize("endpoint", ["127.0.0.1:9000", "minio", "ftp://minio", "http://", "http://minio:99999"])
def test_an_endpoint_that_is_no_address_is_named_with_what_one_is(
    endpoint: str, options: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    sentence = f"AWS_ENDPOINT_URL='{endpoint}': must be http://HOST[:PORT] or https://HOST[:PORT]"
    before = set(threading.enumerate())
    with pytest.raises(SettingsError, match=re.escape(sentence)):
        BatchService(settings_from(options()))
    assert set(threading.enumerate()) <= before
    assert video_store(settings_from(options())).message == sentence


def test_what_needs_the_store_says_why_it_can_not_be_done(service: BatchService, gate: Gate) -> None:
    make(service, 1)
    gate.fault(Fault("HEAD", "", 503))
    gate.fault(Fault("GET", "", 403, "AccessDenied"))
    for ask in (service.audit, lambda: service.retry_batch("b", ["b-01"]), lambda: service.jobs_without_file("b")):
        with pytest.raises(StorageError, match=r"the store can't be asked: the bucket films at .*(HTTP 403|HTTP 503)"):
            ask()
    service.delete_batch("b", keep_files=True)
    with pytest.raises(StorageError, match=r"the store can't be asked: the bucket films at .* refused access"):
        service.delete_batch("b")


# --- cancellations, and owners that are late


@pytest.mark.parametrize("size", [4096, LARGE])
def test_an_upload_of_a_cancelled_batch_leaves_nothing(
    size: int, provider: Provider, service: BatchService, gate: Gate
) -> None:
    provider.options(content_bytes=size)
    held = threading.Event()
    fault = gate.fault(Fault("PUT", r"\.mp4", 200, held=held, after=True, times=2))
    service.create_batch(videos("a lake", id="b"))
    running = service.process_batch("b")
    fault.met.wait(PATIENCE)
    service.cancel_batch("b")
    running.result(PATIENCE)
    held.set()
    fault.passed.wait(PATIENCE)
    until(lambda: objects(service) == [] and gate.server.open_uploads() == 0 and not left_here(service))
    until(lambda: not service._orphans._threads)
    assert objects(service) == []


@BOTH
@pytest.mark.parametrize("status", [None, 403])
def test_closing_in_the_middle_of_an_upload_aborts_it(
    status: int | None, provider: Provider, start_service: Start, gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    provider.options(content_bytes=LARGE)
    held = threading.Event()
    fault = gate.fault(Fault("PUT", "partNumber=1", status, "AccessDenied", held=held, times=1))
    service = start_service()
    service.create_batch(videos("a lake", id="b"))
    service.process_batch("b")
    fault.met.wait(PATIENCE)
    threading.Timer(0.3, held.set).start()
    service.close()
    gc.collect()  # asyncio tells of an error that nobody has looked at when its future goes
    assert [record for record in caplog.records if record.name == "asyncio"] == []
    assert gate.server.open_uploads() == 0
    again = start_service()
    check_objects(again, again.process_batch("b").result(PATIENCE), provider)
    check_paid_once(provider)


def test_what_a_killed_process_received_is_removed_from_its_own_folder(
    provider: Provider, start_service: Start, drivers: Drivers, options: Callable[..., Any], environment: dict[str, str],
    tmp_path: Path,
) -> None:  # fmt: skip
    """Another machine takes its batch over, and does not see that folder."""
    mine = str(tmp_path / "its own")
    order = {"options": options(video_dir=mine), "environment": environment}
    ends = [drivers.run(**order, request=videos("a lake", id=i), label="before upload") for i in ("b", "open")]
    assert [end["ended"] for end in ends] == [-signal.SIGKILL] * 2
    with start_service() as other:
        assert other.process_batch("b").result(PATIENCE).status == "completed"
    again = start_service(video_dir=mine)
    assert len(left_here(again)) == 2
    assert again.sweep_parts() == 1
    assert [path.parent.name for path in left_here(again)] == ["open"], "its owner may be alive"
    check_objects(again, again.process_batch("open").result(PATIENCE), provider)
    assert left_here(again) == []


@BOTH
@pytest.mark.parametrize("step", ["PUT partNumber=1&", "PUT partNumber=2&", "POST uploadId="])
def test_a_kill_between_two_parts_leaves_nothing_but_what_the_lifecycle_rule_removes(
    step: str,
    provider: Provider,
    start_service: Start,
    gate: Gate,
    drivers: Drivers,
    options: Callable[..., Any],
    environment: dict[str, str],
) -> None:
    """Of three parts none, one or all have arrived. What was on its way to the server when its sender died arrives."""
    provider.options(content_bytes=LARGE)
    held, free = threading.Event(), threading.Event()
    free.set()
    method, where = step.split()
    fault = gate.fault(Fault(method, where, held=held, times=1))
    first = gate.fault(Fault("PUT", "partNumber=1&", held=free, times=1))
    owner = drivers.start(options=options(), environment=environment, request=videos("a lake", id="b"))
    assert fault.met.wait(PATIENCE)
    # Parts are sent side by side: the first one may come after the second one, and not whole from who was killed.
    assert "partNumber=1&" in step or first.passed.wait(PATIENCE)
    os.kill(owner, signal.SIGKILL)
    assert drivers.end(owner)["ended"] == -signal.SIGKILL
    held.set()
    assert fault.passed.wait(PATIENCE)
    service, left = start_service(), gate.server.open_uploads()
    finished = method == "POST"
    assert (len(objects(service)), left) == ((1, 0) if finished else (0, 1))
    check_objects(service, service.process_batch("b").result(PATIENCE), provider)
    check_paid_once(provider)
    assert left_here(service) == []
    assert gate.server.open_uploads() == left
    gate.server.abort_uploads()


@pytest.mark.parametrize("label", ["before upload", "after upload", "before completion"])
def test_no_object_of_a_dead_owner_is_left_of_a_cancelled_batch(
    label: str, service: BatchService, drivers: Drivers, options: Callable[..., Any], environment: dict[str, str]
) -> None:
    order = {"options": options(), "environment": environment, "request": videos(*numbered(2), id="b", concurrency=1)}
    assert drivers.run(**order, label=label, hit=2)["ended"] == -signal.SIGKILL
    summary = service.cancel_batch("b")
    assert (summary.cancelled, summary.completed) == (1, 1)
    done = [job.video.uri for job in service.get_batch_status("b").jobs if job.video]
    until(lambda: objects(service) == done)
    until(lambda: left_here(service) == [])


def test_an_owner_that_wakes_after_a_retry_with_changes_replaces_nothing(
    provider: Provider,
    start_service: Start,
    drivers: Drivers,
    options: Callable[..., Any],
    environment: dict[str, str],
    tmp_path: Path,
) -> None:
    changes = {"sora_delete_on_cancel": "never"}
    elsewhere = str(tmp_path / "another machine's")
    order = {
        "options": options(video_dir=elsewhere, **changes),
        "environment": environment,
        "request": videos("a lake", id="b"),
    }
    late = drivers.start(**order, label="before upload", how="stop", until="after upload")
    while "stopped" not in drivers.told(late):
        pass
    service = start_service(**changes)
    service.cancel_batch("b")
    retried = service.retry_batch("b", changes={"b-01": {"prompt": "a forest"}}).result(PATIENCE)
    os.kill(late, signal.SIGCONT)
    assert drivers.end(late)["said"]["status"] == "completed"
    until(lambda: objects(service) == [job.video.uri for job in retried.jobs if job.video])
    until(lambda: left_here(service) == [])
    check_objects(service, retried, provider)


@pytest.mark.parametrize("again", [False, True], ids=["deleted", "made again"])
def test_an_owner_that_wakes_after_the_deletion_leaves_nothing(
    again: bool,
    provider: Provider,
    start_service: Start,
    drivers: Drivers,
    options: Callable[..., Any],
    environment: dict[str, str],
    tmp_path: Path,
) -> None:
    changes = {"sora_delete_on_cancel": "never"}
    elsewhere = str(tmp_path / "another machine's")
    order = {"options": options(video_dir=elsewhere, **changes), "environment": environment}
    late = drivers.start(
        **order, request=videos("a lake", id="b"), label="before upload", how="stop", until="after upload"
    )
    while "stopped" not in drivers.told(late):
        pass
    service = start_service(**changes)
    service.cancel_batch("b")
    service.delete_batch("b")
    made = [job.video.uri for job in make(service, 1).jobs if job.video] if again else []
    os.kill(late, signal.SIGCONT)
    drivers.end(late)
    until(lambda: objects(service) == made)


@BOTH
def test_a_removal_that_is_late_hits_no_file_of_a_retry(
    provider: Provider, start_service: Start, gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    """The same bytes come again after a retry while their first object is about to be removed."""
    service = start_service(sora_delete_on_cancel="never")
    held = threading.Event()
    put = gate.fault(Fault("PUT", r"\.mp4", 200, held=held, after=True, times=1))
    service.create_batch(videos("a lake", id="b"))
    running = service.process_batch("b")
    put.met.wait(PATIENCE)
    removal = threading.Event()
    late = gate.fault(Fault("POST", r"\?delete", held=removal))
    service.cancel_batch("b")
    running.result(PATIENCE)
    held.set()
    late.met.wait(PATIENCE)
    first = objects(service)
    batch = service.retry_batch("b").result(PATIENCE)
    removal.set()
    video = batch.jobs[0].video
    assert video is not None
    assert first == [video.uri.replace(video.sha256[:16], video.sha256[:8])]
    until(lambda: objects(service) == [video.uri])
    until(lambda: service._read(service._storage.doomed.batch_ids) == [])
    check_objects(service, batch, provider)
    check_journal(service, "b")


def test_a_process_that_is_suspended_while_it_cleans_up_removes_no_file_of_a_retry(
    provider: Provider, start_service: Start, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {"sora_delete_on_cancel": "never"}
    service, other = start_service(**changes), start_service(**changes)
    suspended = threading.Event()
    cleaning = threading.local()  # several clean at once: who cancels, and who stops making the batch
    cleaned = service._orphans._clean_bucket

    def clean(bucket: Any, batch_id: str) -> None:
        cleaning.looks, cleaning.slept = 0, 0.0
        cleaned(bucket, batch_id)
        if cleaning.slept:
            suspended.set()

    def look() -> float:
        """Suspended at the second look at the clock: behind the record of what is to be removed."""
        if not hasattr(cleaning, "looks"):  # the other service's
            return boottime()
        cleaning.looks += 1
        if cleaning.looks == 2 and other.get_batch_status("b").status == "cancelled":
            other._orphans.finish_soon()
            until(lambda: objects(other) == [] and not other._orphans._threads)
            assert other.retry_batch("b").result(PATIENCE).status == "completed"
            cleaning.slept = 3600.0
        return boottime() + cleaning.slept

    held = threading.Event()
    put = gate.fault(Fault("PUT", r"\.mp4", 200, held=held, after=True, times=1))
    service.create_batch(videos("a lake", id="b"))
    running = service.process_batch("b")
    assert put.met.wait(PATIENCE)
    monkeypatch.setattr("actors.batch.orphans.boottime", look)
    monkeypatch.setattr(service._orphans, "_clean_bucket", clean)
    service.cancel_batch("b")
    running.result(PATIENCE)
    held.set()
    assert suspended.wait(PATIENCE)
    until(lambda: not service._orphans._threads)
    check_objects(service, service.get_batch_status("b"), provider)


def test_what_the_owner_on_another_machine_left_is_removed_when_its_lease_is_over(
    start_service: Start, drivers: Drivers, options: Callable[..., Any], environment: dict[str, str], tmp_path: Path
) -> None:
    changes = {"sora_delete_on_cancel": "never", "video_dir": str(tmp_path / "another machine's")}
    order = {"options": options(**changes), "environment": environment, "request": videos("a lake", id="b")}
    assert drivers.run(**order, label="after upload")["ended"] == -signal.SIGKILL
    service = start_service(sora_delete_on_cancel="never")
    elsewhere = "UPDATE owners SET host='elsewhere', lease_until=lease_until+14"
    service._write(lambda: service._database.execute(elsewhere))
    service._orphans.clean_soon = lambda _: None  # type: ignore[method-assign]  # whoever cancels it dies before that
    service.cancel_batch("b")
    service.close()
    other = start_service()
    assert len(objects(other)) == 1
    other.serve()
    other._write(lambda: other._database.execute("UPDATE owners SET lease_until=lease_until-60 WHERE host='elsewhere'"))
    until(lambda: objects(other) == [])


def test_a_service_is_ready_only_while_the_bucket_is(service: BatchService, gate: Gate) -> None:
    bucket = service.stores.bucket
    assert bucket is not None
    make(service, 1)
    gate.asked.clear()
    assert bucket.obstacle() is None
    assert [method for method, _ in gate.asked] == ["GET"]
    gate.fault(Fault("GET", "sora-batch", 503, "SlowDown"))
    assert "can't do it just now (HTTP 503, SlowDown" in str(bucket.obstacle())
    gate.mend()
    gate.fault(Fault("PUT", "", 403, "AccessDenied"))
    assert bucket.obstacle() is None  # it was written to a moment ago
    service.create_batch(videos("another lake", id="c"))
    assert service.process_batch("c").result(PATIENCE).status == "failed"
    assert "refused access" in str(bucket.obstacle())
    gate.mend()
    assert bucket.obstacle() is None


RULE = b"""<LifecycleConfiguration><Rule><ID>incomplete uploads</ID><Status>Enabled</Status><Filter><Prefix></Prefix></Filter>
<AbortIncompleteMultipartUpload><DaysAfterInitiation>1</DaysAfterInitiation></AbortIncompleteMultipartUpload></Rule>
</LifecycleConfiguration>"""


def test_doctor_tries_the_bucket_and_looks_for_the_rule(
    start_service: Start, server: S3Server, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = start_service().settings
    check = video_store(settings)
    assert check.ok
    assert check.message.startswith(f"{settings.video_store}: files can be put, read, listed and removed; ")
    assert "has no lifecycle rule that removes incomplete uploads" in check.message
    assert server.ask("PUT", f"/{BUCKET}?lifecycle", RULE)[0] == 200
    assert "lifecycle" not in video_store(settings).message
    assert server.ask("DELETE", f"/{BUCKET}?lifecycle")[0] == 204
    assert not [path for _, path in gate.asked if "sora-batch" in path and "probe" not in path and "PUT" in path]
    for method, code in (("PUT", "AccessDenied"), ("GET", "AccessDenied"), ("POST", "AccessDenied")):
        fault = gate.fault(Fault(method, "probe|delete", 403, code))
        assert not video_store(settings).ok
        assert "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" in video_store(settings).message
        assert fault.met.is_set()
        gate.mend()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    nowhere = start_service().settings
    assert "can't be reached" in video_store(nowhere).message
    assert "check AWS_ENDPOINT_URL" in video_store(nowhere).message


@pytest.mark.parametrize("server", ["rclone"], indirect=True)
def test_doctor_says_where_the_rule_can_not_be_looked_for(start_service: Start) -> None:
    check = video_store(start_service().settings)
    assert check.ok
    assert "(this server answers with something else)" in check.message


def test_what_a_process_was_about_to_remove_the_next_one_removes(start_service: Start, gate: Gate) -> None:
    service = start_service()
    batch = make(service, 1)
    video, bucket = batch.jobs[0].video, service.stores.bucket
    assert video is not None
    assert bucket is not None
    stray = f"{bucket.uri}/b/b-01-00000000.mp4"
    part = PartFile(service.stores.folder.root / "stray")
    part.path.write_bytes(b"x")
    bucket.restore(part.path, stray, "video/mp4", 1, "0")
    part.discard()
    service._write(lambda: service._storage.doomed.doom("b", [stray], 0.0))
    service.close()
    again = start_service()
    again.serve()
    until(lambda: objects(again) == [video.uri])
    until(lambda: again._read(again._storage.doomed.batch_ids) == [])


def test_a_missing_package_is_named_with_its_line(
    start_service: Start, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import sys

    from storage import bucket_client

    bucket_client.load_obstore.cache_clear()
    monkeypatch.setitem(sys.modules, "obstore", None)
    service = BatchService(settings_from(options_for("http://127.0.0.1:1", tmp_path, video_store=f"s3://{BUCKET}")))
    try:
        service.create_batch(videos("a lake", id="b"))
        with pytest.raises(SettingsError, match=r"pip install 'sora-batch\[objectstore\]'"):
            service.process_batch("b")
    finally:
        service.close()
        bucket_client.load_obstore.cache_clear()
