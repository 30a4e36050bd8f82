"""Every documented import, and a call of every public method."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from datetime import timedelta

import actors
from actors import (
    AsyncBatchClient,
    AsyncBatchService,
    AuditReport,
    Batch,
    BatchClient,
    BatchReleased,
    BatchService,
    BatchStatus,
    BatchVideoRequest,
    CancellationSummary,
    Charge,
    Conflict,
    DatabaseUnusable,
    ErrorCode,
    Event,
    EventFeed,
    EventStream,
    FieldError,
    InvalidRequest,
    Job,
    JobError,
    JobStatus,
    NotFound,
    Progress,
    PruneReport,
    Quote,
    RunningBatch,
    Settings,
    SettingsError,
    SoraBatchError,
    SoraError,
    StorageError,
    SubmissionRecord,
    SubmissionState,
    Unanswered,
    VideoFile,
    VideoRequest,
    Wait,
    get_batch_service,
    load_settings,
)


def told(batch: Batch) -> list[str]:
    progress: Progress = batch.progress
    jobs: list[Job] = batch.jobs
    status: BatchStatus = batch.status
    lines = [f"{batch.id} {status.value} {progress.percentage}"]
    for job in jobs:
        state: JobStatus = job.status
        video: VideoFile | None = job.video
        error: JobError | None = job.error
        lines.append(f"{job.id} {state.value} {video.path if video else error.message if error else ''}")
    return lines


def library(settings: Settings) -> None:
    request = BatchVideoRequest(videos=[VideoRequest(prompt="A lake", duration=8), VideoRequest(prompt="A", seconds=8)])
    with BatchService(settings, simulate=True) as service:
        quote: Quote = service.quote(request)
        print(quote.sentence, [(cost.currency, cost.estimated_micros) for cost in quote.cost])
        batch: Batch = service.create_batch(request)
        batch = service.create_batch({"videos": [{"prompt": "A lake"}]})
        running: RunningBatch = service.process_batch(batch.id, concurrency=2)
        future: Future[Batch] = running
        final: Batch = future.result()
        summary: CancellationSummary = service.cancel_batch(batch.id, "no")
        charges: list[Charge] = summary.may_be_charged
        batches: list[Batch] = service.list_batches(BatchStatus.FAILED, {"team": "blue"}, limit=5, after=batch.id)
        service.retry_batch(batch.id, [final.job_ids[0]], {final.job_ids[0]: {"prompt": "B"}}, pay_again=True)
        resumed: list[RunningBatch] = service.resume_batches([batch.id])
        service.update_metadata(batch.id, {"a": [1]})
        events: list[Event] = service.history(batch.id, 2)
        submissions: list[SubmissionRecord] = service.submissions(batch.id)
        made = [each.remote_id for each in submissions if each.state is SubmissionState.BOUND]
        waits: dict[str, Wait] = service.waits(batch.id)
        pruned: PruneReport = service.prune(timedelta(days=30), delete_batches=True)
        report: AuditReport = service.audit(checksums=True)
        service.let_go(batch.id)
        service.delete_batch(batch.id, keep_files=True)
        print(charges, batches, resumed, [event.name for event in events], made, waits, pruned.events, report.clean)
        print(service.provider, service.database_place, service.closed, told(final))
    get_batch_service().close()


def wrong(error: SoraBatchError) -> str:
    code: ErrorCode = error.code
    if isinstance(error, InvalidRequest | SettingsError):
        entry: FieldError = error.errors[0]
        return entry.field
    known = (BatchReleased, Conflict, DatabaseUnusable, NotFound, SoraError, StorageError, Unanswered)
    return code.value if isinstance(error, known) else error.message


async def asynchronous() -> None:
    async with AsyncBatchService() as service:
        quote: Quote = await service.quote({"videos": [{"prompt": "A lake"}]})
        print(quote.unknown_prices, [video.price for video in quote.videos])
        batch = await service.create_batch({"videos": [{"prompt": "A lake"}]})
        running: RunningBatch = await service.start_batch(batch.id, 2)
        final: Batch = await asyncio.wrap_future(running)
        final = await service.process_batch(batch.id)
        final = await service.retry_batch(batch.id, pay_again=True)
        resumed: list[Batch] = await service.resume_batches()
        summary: CancellationSummary = await service.cancel_batch(batch.id)
        events: list[Event] = await service.history(batch.id)
        submissions: list[SubmissionRecord] = await service.submissions(batch.id)
        report: AuditReport = await service.audit()
        pruned: PruneReport = await service.prune(timedelta(days=1))
        print(final, resumed, summary, events, submissions, report, pruned)
    async with AsyncBatchClient() as client:
        batch_id: str = await client.create({"videos": [{"prompt": "A lake"}]})
        async for event in client.events(batch_id):
            print(event.name)
        async for document in client.subscribe("batch.completed.#"):
            print(document["type"])


def remote() -> None:
    with BatchClient("amqp://localhost", source="/shop", timeout=5) as client:
        batch_id = client.create({"videos": [{"prompt": "A lake"}]}, process=False)
        client.process(batch_id, 2)
        stream: EventStream = client.events(batch_id)
        for event in stream:
            print(event.name, event.data["progress"])
        feed: EventFeed = client.subscribe("#")
        batch: Batch = client.report(batch_id)
        client.retry(batch_id, pay_again=True)
        summary: CancellationSummary = client.cancel(batch_id)
        print(feed.next(1.0), batch, summary.cancelled, actors.__version__)


if __name__ == "__main__":
    library(load_settings())
    remote()
    asyncio.run(asynchronous())
