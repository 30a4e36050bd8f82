"""BatchClient: batches over RabbitMQ, for applications without a database or a service of their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from actors.batch.job_views import Job
from actors.batch.requests import BatchVideoRequest, new_batch_id
from actors.batch.views import Batch, CancellationSummary
from actors.rabbitmq.client.calls import CommandCaller, Unanswered
from actors.rabbitmq.client.feed import EventFeed
from actors.rabbitmq.client.rpc import LOST
from actors.rabbitmq.client.stream import EventStream

if TYPE_CHECKING:
    from actors.fetching.fetch import FetchReport


class BatchClient(CommandCaller):
    """Publishes commands and waits for their answers. Its methods may be called from any thread, one at a time.

    An interrupted command is sent again: it is the same one, and a service applies it once. Each method may raise
    `Unanswered` (RabbitMQ or a service is unreachable; the command may still be applied) and why it was rejected:
    `InvalidRequest`, `NotFound` or `Conflict`.

        with BatchClient() as client:
            batch_id = client.create({"videos": [{"prompt": "A sunset over the ocean"}]})
            for event in client.events(batch_id):
                print(event.name, event.data["progress"]["percentage"])
    """

    def create(
        self,
        request: BatchVideoRequest | Mapping[str, Any],
        *,
        process: bool = True,
        queued: Callable[[str], object] | None = None,
    ) -> str:
        """Create a batch, queue it, and return its id.

        Args:
            request: as for `BatchService.create_batch`.
            process: False leaves it pending.
            queued: called with the batch's id once the command is in its queue and no service listens there. If it
                returns, the wait for the answer has no limit; without it, `Unanswered` is raised at the timeout.
        """
        given = request.model_dump(mode="json", exclude_unset=True) if isinstance(request, BaseModel) else request
        data = {**given, "process": process}
        if data.get("id") is None:  # chosen here, so that we can listen for its answer
            data["id"] = new_batch_id()
        try:
            return str(self._ask("create", data, data["id"], queued)["batch_id"])
        except Unanswered as error:
            if not error.sent:
                raise
            way_out = (
                f"A new batch would be paid for again: the same request with the id {data['id']} is the same batch"
            )
            raise Unanswered(f"{error}. {way_out}", sent=True, queued=error.queued) from error

    def process(self, batch_id: str, concurrency: int | None = None) -> None:
        """Queue a batch to be made."""
        self._ask("process", _given(batch_id=batch_id, concurrency=concurrency))

    def cancel(self, batch_id: str, reason: str | None = None) -> CancellationSummary:
        """Cancel a batch. Nothing new is started after that; the summary says what may still be charged."""
        return CancellationSummary.model_validate(
            self._ask("cancel", _given(batch_id=batch_id, reason=reason))["summary"]
        )

    def retry(
        self,
        batch_id: str,
        job_ids: Sequence[str] | None = None,
        changes: Mapping[str, Mapping[str, Any]] | None = None,
        *,
        pay_again: bool = False,
        move_server: bool = False,
        budget: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
        missing: bool = False,
    ) -> None:
        """Retry what failed or was cancelled. `changes`: by job id, the fields of its request that change.

        `pay_again`, `move_server`, `budget`: as for `BatchService.retry_batch`. A completed job whose file is missing
        in the service's store is downloaded again if it is named, or with `missing`, which alone retries nothing else.
        The service does so after its answer; its log says what could not be had.
        """
        listed = None if job_ids is None else list(job_ids)
        said = {name: True for name, value in (("move_server", move_server), ("missing", missing)) if value}
        consents = {"pay_again": pay_again} | said
        self._ask("retry", _given(batch_id=batch_id, job_ids=listed, changes=changes, budget=budget, **consents))

    def update(
        self,
        batch_id: str,
        metadata: Mapping[str, Any] | None = None,
        budget: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
    ) -> None:
        """Replace a batch's metadata, its budget, or both, in whatever state it is. None: it stays as it is.

        `budget`: as of a request, one entry a unit; an empty list: the batch has none.
        """
        self._ask("update", _given(batch_id=batch_id, metadata=metadata, budget=budget))

    def delete(self, batch_id: str, *, keep_files: bool = False) -> None:
        """Forget an ended batch, and delete its files unless `keep_files`. Returns when all of it is gone."""
        self._ask("delete", {"batch_id": batch_id, "keep_files": keep_files})

    def report(self, batch_id: str) -> Batch:
        """A batch as it is, with as many jobs as fit into 8 MiB."""
        return Batch.model_validate(self._ask("report", {"batch_id": batch_id})["batch"])

    def fetch(self, batch_id: str, folder: str | Path, name_of: Callable[[Job], str] | None = None) -> FetchReport:
        """Get the finished files of a batch into a folder: from a store that is reachable here, or over HTTP.

        Over HTTP they come from `video.url`, or from the service that WEB_PUBLIC_URL names; WEB_TOKEN goes to it alone.
        The arguments and the report are those of `BatchService.fetch`.
        """
        from actors.fetching.fetch import Fetcher
        from actors.fetching.places import stored_name
        from actors.settings import load_settings
        from storage.stores import Stores

        settings, batch = load_settings(), self.report(batch_id)
        fetcher = Fetcher(Path(folder), settings, Stores(settings.video_dir))
        return fetcher.fetch(batch, name_of=name_of or stored_name)

    def events(self, batch_id: str, from_sequence: int | None = 1) -> EventStream:
        """A batch's events until it ends, in order and each once, over a connection of their own.

        `from_sequence`: the first event; None: the first one after the stream's `batch`.
        """
        return EventStream(self.broker, batch_id, from_sequence, source=self.source, timeout=self.timeout)

    def subscribe(self, *keys: str) -> EventFeed:
        """Events from now on with these routing keys (`batch.completed.#`; `#` is all), as CloudEvents."""
        return EventFeed(self.broker, *(keys or ("#",)))

    def listening(self) -> bool:
        """Whether a service is listening there now.

        Raises:
            Unanswered: RabbitMQ is unreachable, or refuses us.
        """
        with self._lock:
            try:
                with suppress(*LOST):
                    return self._consumed("create")
                self._drop()  # it may have been lost long ago: a new one shows
                return self._consumed("create")
            except LOST as error:
                self._drop()
                raise self.broker.unreachable(error) from error


def _given(**data: Any) -> dict[str, Any]:
    return {name: value for name, value in data.items() if value is not None}
