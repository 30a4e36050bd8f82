"""The metrics' names and labels, as they are promised."""

import pytest
from prometheus_client.parser import text_string_to_metric_families as parsed

from actors.web.metrics import MODELS, OTHER, Metrics
from storage.unfinished import Unfinished

PROMISED = {
    "sora_batch_jobs": {"status"},
    "sora_batch_batches": {"status"},
    "sora_batch_oldest_pending_age_seconds": set(),
    "sora_batch_unknown_submissions": set(),
    "sora_batch_owed_deletes": set(),
    "sora_batch_outbox_events": set(),
    "sora_batch_outbox_lag_seconds": set(),
    "sora_batch_jobs_finished_total": {"status"},
    "sora_batch_submissions_total": {"outcome"},
    "sora_batch_requests_total": {"operation", "status"},
    "sora_batch_commands_total": {"command", "answer"},
    "sora_batch_takeovers_total": set(),
    "sora_batch_generation_duration_seconds_bucket": {"model", "le"},
    "sora_batch_generation_duration_seconds_sum": {"model"},
    "sora_batch_generation_duration_seconds_count": {"model"},
    "sora_batch_commit_duration_seconds_bucket": {"le"},
    "sora_batch_commit_duration_seconds_sum": set(),
    "sora_batch_commit_duration_seconds_count": set(),
    "sora_batch_build_info": {"version"},
}
NOTHING = Unfinished({"pending": 0}, {"pending": 0}, 0.0, 0, 0, 0, 0.0)


@pytest.fixture
def metrics():
    return Metrics()


def samples(metrics, unfinished=NOTHING):
    body, _ = metrics.exposition("", unfinished)
    return [sample for family in parsed(body.decode()) for sample in family.samples]


def value(metrics, name, **labels):
    return next((s.value for s in samples(metrics) if s.name == name and s.labels == labels), None)


def test_every_name_and_label_is_as_promised_and_there_is_no_other(metrics):
    metrics.request("create", 200)
    metrics.command("create", "accepted")
    metrics.generated("sora-2", 12.0)
    found = {}
    for sample in samples(metrics):
        found.setdefault(sample.name, set()).update(sample.labels)
    assert found == PROMISED


def test_gauges_of_tables_that_cannot_be_read_are_left_out(metrics):
    names = {sample.name for sample in samples(metrics, None)}
    assert "sora_batch_jobs" not in names
    assert "sora_batch_takeovers_total" in names


def test_two_services_count_apart(metrics):
    Metrics().takeovers(3)
    metrics.takeovers(1)
    assert value(metrics, "sora_batch_takeovers_total") == 1


def test_models_beyond_the_first_fifty_share_a_label(metrics):
    for number in range(MODELS + 10):
        metrics.generated(f"model-{number}", 1.0)
    metrics.generated("model-3", 1.0)
    count = "sora_batch_generation_duration_seconds_count"
    assert value(metrics, count, model="model-3") == 2
    assert value(metrics, count, model="model-55") is None
    assert value(metrics, count, model=OTHER) == 10


def test_a_request_without_an_answer_is_counted_as_that(metrics):
    metrics.request("create", None)
    assert value(metrics, "sora_batch_requests_total", operation="create", status="none") == 1


def test_a_scraper_that_asks_for_openmetrics_gets_it(metrics):
    body, content_type = metrics.exposition("application/openmetrics-text; version=1.0.0", NOTHING)
    assert content_type.startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")


def test_how_much_of_the_budgets_is_used_is_not_for_everybody(metrics):
    def ratios(budgets):
        body, _ = metrics.exposition("", NOTHING, budgets)
        found = [sample for family in parsed(body.decode()) for sample in family.samples]
        return {each.labels["scope"]: each.value for each in found if each.name == "sora_batch_budget_used_ratio"}

    assert ratios({"day": 0.25, "month": 1.5}) == {"day": 0.25, "month": 1.5}
    assert ratios(None) == {}
