"""Metrics: what the process counts as it goes, and what the tables say at the scrape, as Prometheus reads it."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram, Info, disable_created_metrics
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from actors import __version__
from actors.observer import Observer
from storage.states import JobStatus
from storage.unfinished import Unfinished

MODELS = 50
OTHER, NO_MODEL, NO_ANSWER = "other", "default", "none"
_OUTCOMES = ("bound", "refused", "not_sent", "unknown", "adopted", "absent", "abandoned")
_FINISHED = (JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED)
_GENERATION = (1, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600)
_COMMIT = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)


class Metrics(Observer):
    """Counts in a registry of its own: another service of this process has another one."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # process-wide: a second name for each counter, of which nobody has a need
        self._registry = CollectorRegistry()
        self._tables = _Tables()
        self._registry.register(self._tables)
        self._jobs = self._counter("jobs_finished", "Jobs whose end this process recorded.", "status")
        self._submissions = self._counter("submissions", "Outcomes of submissions.", "outcome")
        self._requests = self._counter("requests", "Requests to the Videos API.", "operation", "status")
        self._commands = self._counter("commands", "Commands from RabbitMQ.", "command", "answer")
        self._takeovers = self._counter("takeovers", "Batches taken over from owners that had died.")
        self._generation = Histogram(
            "sora_batch_generation_duration_seconds", "From the server's acceptance of a video until it was ready.",
            ["model"], registry=self._registry, buckets=_GENERATION,
        )  # fmt: skip
        self._commits = Histogram(
            "sora_batch_commit_duration_seconds", "Transactions of the recorder, from BEGIN to COMMIT.",
            registry=self._registry, buckets=_COMMIT,
        )  # fmt: skip
        Info("sora_batch_build", "The version of sora-batch.", registry=self._registry).info({"version": __version__})
        self._models: set[str] = set()
        self._lock = threading.Lock()
        for status in _FINISHED:  # a series that only begins with its first event hides that event from rate()
            self._jobs.labels(status.value)
        for outcome in _OUTCOMES:
            self._submissions.labels(outcome)

    def _counter(self, name: str, about: str, *labels: str) -> Counter:
        return Counter(f"sora_batch_{name}", about, labels, registry=self._registry)

    def exposition(
        self, accept: str, unfinished: Unfinished | None, budgets: Mapping[str, float] | None = None
    ) -> tuple[bytes, str]:
        """What is scraped, and its content type.

        Args:
            accept: the header of the scrape.
            unfinished: what the tables say; None: they can't be read, and their gauges are left out.
            budgets: by scope, how much of the budgets of the database is used; None: not for everybody.
        """
        self._tables.unfinished, self._tables.budgets = unfinished, budgets or {}
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type

    def submission(self, outcome: str) -> None:
        """Count it."""
        self._submissions.labels(outcome).inc()

    def request(self, operation: str, status: int | None) -> None:
        """Count it."""
        self._requests.labels(operation, NO_ANSWER if status is None else str(status)).inc()

    def command(self, name: str, answer: str) -> None:
        """Count it."""
        self._commands.labels(name, answer).inc()

    def takeovers(self, count: int) -> None:
        """Count them."""
        if count:
            self._takeovers.inc(count)

    def finished(self, status: str) -> None:
        """Count it."""
        self._jobs.labels(status).inc()

    def generated(self, model: str | None, seconds: float) -> None:
        """Count it under its model; models beyond the first 50 share one label."""
        self._generation.labels(self._label_of(model)).observe(seconds)

    def committed(self, seconds: float) -> None:
        """Count it."""
        self._commits.observe(seconds)

    def _label_of(self, model: str | None) -> str:
        if model is None:
            return NO_MODEL
        with self._lock:
            if model not in self._models and len(self._models) >= MODELS:
                return OTHER
            self._models.add(model)
        return model


class _Tables(Collector):
    """The gauges: what was read from the tables for this scrape."""

    def __init__(self) -> None:
        self.unfinished: Unfinished | None = None
        self.budgets: Mapping[str, float] = {}

    def describe(self) -> list[Metric]:
        """Their names are not asked of the database when they are registered."""
        return []

    def collect(self) -> Iterator[Metric]:
        found = self.unfinished
        if found is None:
            return
        yield _by_status("jobs", "Jobs that have not ended.", found.jobs)
        yield _by_status("batches", "Batches that have not ended.", found.batches)
        numbers = {
            "oldest_pending_age_seconds": ("Since the oldest pending job was created.", found.oldest_pending),
            "unknown_submissions": ("Submissions whose outcome is unknown.", found.unknown_submissions),
            "owed_deletes": ("DELETEs of cancelled videos that are still owed to servers.", found.owed_deletes),
            "outbox_events": ("Recorded events that RabbitMQ has not confirmed.", found.outbox_events),
            "outbox_lag_seconds": ("Since the oldest of these events was recorded.", found.outbox_lag),
        }
        for name, (about, value) in numbers.items():
            yield GaugeMetricFamily(f"sora_batch_{name}", about, value=value)
        if self.budgets:
            about = "The used part of the database's budgets, of several in a scope the largest."
            family = GaugeMetricFamily("sora_batch_budget_used_ratio", about, labels=["scope"])
            for scope, ratio in self.budgets.items():
                family.add_metric([scope], ratio)
            yield family


def _by_status(name: str, about: str, counts: dict[str, int]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"sora_batch_{name}", about, labels=["status"])
    for status, count in counts.items():
        family.add_metric([status], count)
    return family
