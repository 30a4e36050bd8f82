"""A budget holds: a batch stops exactly where its next video would exceed it, and goes on when it is raised."""

import json
import subprocess
import sys
from decimal import Decimal

import pytest

from actors.cli.checks import budget
from actors.errors import InvalidRequest, NotFound
from actors.sora.resolving import LateResolver
from actors.web.listener import Listener
from tests.integration.support import PATIENCE, ROOT, check_journal, options_for, settings_from, until

pytestmark = pytest.mark.integration

PRICE = "0.17"
"""US dollars a second: 20 USD are enough for 29 videos of 4 s, at 0.68 each."""


@pytest.fixture
def prices(tmp_path):
    file = tmp_path / "prices.json"
    file.write_text(json.dumps({"*": {"output_cost_per_second": float(PRICE), "source": "the tests"}}))
    return str(file)


def a_request(count, budget, **more):
    prompts = [{"prompt": f"a: video {number}", "duration": 4} for number in range(1, count + 1)]
    return {"videos": prompts, "budget": budget, "id": "nature", "concurrency": 8, **more}


def used(service):
    (budget,) = service._read(lambda: service._storage.ledger.of_batch("nature"))
    return Decimal(budget.used_micros) / 10**6


@pytest.mark.parametrize("tells", [None, "cost", "ticks", "header"])
def test_a_batch_of_30_stops_at_20_dollars_and_goes_on_when_they_are_raised(provider, start_service, prices, tells):
    provider.options(prices={"*": PRICE}, tells_price=tells)
    service = start_service(sora_prices=prices, batch_max_size=30)
    service.create_batch(a_request(30, {"amount": 20, "unit": "USD"}))
    batch = service.process_batch("nature").result(PATIENCE)
    assert (batch.status, batch.progress.completed, batch.progress.failed) == ("partial", 29, 1)
    assert len(provider.ledger()["posts"]) == 29
    assert [job.error.code for job in batch.jobs if job.error] == ["budget_exceeded"]
    assert check_journal(service, "nature").count("batch.budget_reached") == 1
    assert used(service) == Decimal(provider.summary()["billed"]) == Decimal("19.72")
    again = service.retry_batch("nature", budget={"amount": "20.40", "unit": "USD"}).result(PATIENCE)
    assert (again.status, len(provider.ledger()["posts"])) == ("completed", 30)
    assert used(service) == Decimal(provider.summary()["billed"]) == Decimal("20.40")


def test_the_terminal_says_where_a_batch_stopped_and_how_it_goes_on(provider, tmp_path, prices):
    settings = options_for(provider.base_url, tmp_path, sora_prices=prices)
    environment = {name.upper(): str(value) for name, value in settings.items()} | {"PYTHONPATH": str(ROOT)}
    (tmp_path / "prompts.txt").write_text("a lake\na hill\na sea\n")

    def run(*arguments):
        command = [sys.executable, "-m", "actors.cli", *arguments]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    done = run("run", "prompts.txt", "--id", "nature", "--duration", "4", "--budget", "1.4 USD")
    assert done.returncode == 3
    told = " ".join((done.stdout + done.stderr).split())
    assert "the next video (0.68 USD) would exceed the batch's budget of 1.4 USD, with 0.04 USD left" in told
    assert "sora-batch retry nature --budget '<AMOUNT> USD'" in told
    assert "raise the budget and retry what failed: sora-batch retry nature --budget '<AMOUNT> USD'" in told
    done = run("retry", "nature", "--budget", "3 USD")
    assert (done.returncode, len(provider.ledger()["posts"])) == (0, 3)
    done = run("retry", "nature", "--budget", "three USD")
    assert done.returncode == 2
    assert "--budget 'three USD': expected amounts with their units" in done.stderr


def test_a_budget_that_is_changed_while_the_batch_runs_holds(provider, service):
    provider.options(latency=0.3)
    service.create_batch(a_request(9, {"amount": 9, "unit": "videos"}, concurrency=1))
    running = service.process_batch("nature")
    provider.wait(posts=2)
    service.update_budget("nature", [{"amount": 4, "unit": "videos"}])
    batch = running.result(PATIENCE)
    assert batch.progress.completed == len(provider.ledger()["posts"]) == 4
    assert used(service) == 4
    service.update_budget("nature", [])
    assert service.retry_batch("nature").result(PATIENCE).status == "completed"


def test_refused_and_failed_videos_give_their_reservation_back(provider, start_service, prices):
    service = start_service(sora_prices=prices, sora_charges_failed="no")
    provider.options(prices={"*": PRICE}, bills_failed=False)
    request = a_request(3, {"amount": 1, "unit": "USD"}, concurrency=1)
    request["videos"][0]["prompt"] = "a: [fail]"
    service.create_batch(request)
    batch = service.process_batch("nature").result(PATIENCE)
    assert [job.error and job.error.code for job in batch.jobs] == ["generation_failed", None, "budget_exceeded"]
    assert used(service) == Decimal(provider.summary()["billed"]) == Decimal("0.68")


def test_batch_budget_counts_where_a_request_has_none(provider, start_service):
    service = start_service(batch_budget="2 videos")
    service.create_batch(a_request(3, None))
    assert service.process_batch("nature").result(PATIENCE).progress.completed == 2
    service.create_batch(a_request(3, [], id="free"))
    assert service.process_batch("free").result(PATIENCE).status == "completed"


def test_a_ceiling_of_the_database_holds_for_all_who_share_it(provider, start_service, prices):
    provider.options(prices={"*": PRICE}, tells_price="cost")
    services = [start_service(sora_prices=prices), start_service(sora_prices=prices, sora_budget="5 USD per day")]
    prompts = [{"prompt": f"a: video {number}", "duration": 4} for number in range(6)]
    for number, service in enumerate(services):
        service.create_batch({"videos": prompts, "id": f"batch-{number}"})
    running = [service.process_batch(f"batch-{number}") for number, service in enumerate(services)]
    done = [each.result(PATIENCE) for each in running]
    assert sum(batch.progress.completed for batch in done) == 7
    assert Decimal(provider.summary()["billed"]) == Decimal("4.76")
    failed = [job.error for batch in done for job in batch.jobs if job.error]
    assert {error.code for error in failed} == {"budget_exceeded"}
    assert "5 USD per day, with 0.24 USD left; raise SORA_BUDGET or wait for the next period" in failed[0].message
    (budget,) = services[0].budgets()
    assert (budget.scope, budget.used_micros) == ("day", 4_760_000)


def test_doctor_shows_the_budgets_of_the_database_and_where_the_settings_differ(provider, start_service, options):
    service = start_service(sora_budget="3 videos per day, 500 seconds per month")
    service.create_batch(a_request(2, None))
    service.process_batch("nature").result(PATIENCE)
    check = budget(settings_from(options(sora_budget="600 seconds per month, 10 EUR")))
    assert check.message.startswith("1 video left of 3 videos per day; 492 seconds left of 500 seconds per month; ")
    assert "SORA_BUDGET here says 600 seconds per month, and another process has written 500 seconds" in check.message
    assert check.message.endswith("10.00 EUR in all will be written on first use")


def shows(service):
    return [(each.scope, each.unit, each.ceiling_micros) for each in service.costs().budgets]


def test_each_process_that_has_a_budget_set_writes_it_whatever_it_does(start_service):
    plain = start_service()
    listener = Listener(start_service(sora_budget="3 videos per day"), "127.0.0.1:0", None)
    listener.close()
    assert shows(plain) == [("day", "videos", 3_000_000)]
    start_service(sora_budget="4 videos per day").create_batch(a_request(1, None))
    assert shows(plain) == [("day", "videos", 4_000_000)]
    first = start_service(sora_budget="5 videos per day")
    assert shows(first) == [("day", "videos", 5_000_000)]
    assert shows(start_service(sora_budget="none")) == []
    assert shows(first) == []  # once per service: the last writer wins


def test_looking_with_a_budget_set_creates_no_database(tmp_path):
    environment = {"DATABASE_URL": f"sqlite:///{tmp_path}/none.db", "SORA_BUDGET": "5 USD", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "actors.cli", "costs"]
    subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, check=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("setting", "problem"),
    [
        ("50", "expected ceilings such as '50 USD per day, 2000 seconds per month', or none"),
        ("0 USD", "must be more than 0"),
        ("50 apples per day", "unknown unit apples"),
        ("50 USD per week", "unknown period week: expected per day, per month, or no period"),
        ("5 USD per day, 6 USD per day", "has two entries in USD per day: give one"),
        ("-5 USD", "expected ceilings"),
        ("NaN USD", "expected ceilings"),
    ],
)
def test_a_budget_that_is_none_is_refused(options, setting, problem):
    with pytest.raises(ValueError, match=problem):
        settings_from(options(sora_budget=setting))


# --- what was spent


def money(cost):
    return [(each.currency, each.charged_micros, each.assumed_micros, each.reserved_micros) for each in cost]


@pytest.mark.parametrize("tells", ["cost", "ticks", "header"])
def test_the_sum_that_costs_tells_is_the_bill_of_the_provider(provider, start_service, prices, tells):
    """To the millionth, and by any grouping: the provider's prices have more digits than that."""
    provider.options(prices={"*": "0.1700000301"}, tells_price=tells)
    service = start_service(sora_prices=prices)
    for name in ("lake", "hill"):
        prompts = [f"{name}: {number}" for number in (1, 2, 3)]
        request = {"videos": [{"prompt": prompt, "duration": 4, "model": name} for prompt in prompts], "id": name}
        service.create_batch({**request, "metadata": {"team": name}})
        service.process_batch(name).result(PATIENCE)
    bill = round(Decimal(provider.summary()["billed"]) * 10**6)
    report = service.costs()
    assert money(report.cost) == [("USD", bill, 0, 0)]
    for by, keys in (("model", ["hill", "lake"]), ("batch", ["hill", "lake"]), ("metadata.team", ["hill", "lake"])):
        assert [group.key for group in service.costs(by=by).groups] == keys
        assert service.costs(by=by).cost == report.cost
    (day,) = service.costs(since="1d", by="day").groups
    assert (day.submissions, day.cost) == (6, report.cost)
    for name in ("lake", "hill"):
        batch = service.get_batch_status(name)
        told = {event.name: event.data for event in service.history(name)}
        assert told["batch.completed"]["batch"]["cost"] == [each.model_dump() for each in batch.cost]
        for event in service.history(name):
            if event.name in {"job.completed", "job.failed"}:
                job = next(job for job in batch.jobs if job.id == event.data["job"]["id"])
                assert event.data["job"]["cost"] == [each.model_dump() for each in job.cost]
        assert [each.cost for each in service.list_batches() if each.id == name] == [batch.cost]


def test_an_unknown_price_is_never_nothing(service):
    service.create_batch({"videos": [{"prompt": "a: lake"}], "id": "nature"})
    assert service.get_batch_status("nature").cost == []
    batch = service.process_batch("nature").result(PATIENCE)
    (cost,) = batch.cost
    assert (cost.currency, cost.unknown_prices, cost.assumed_micros) == (None, 1, 0)
    assert batch.jobs[0].cost == batch.cost == service.costs().cost


def test_a_persons_word_settles_a_submission_for_good(provider, start_service, prices):
    provider.options(prices={"*": PRICE})
    service = start_service(sora_prices=prices)
    service.create_batch(a_request(2, {"amount": 20, "unit": "USD"}))
    service.process_batch("nature").result(PATIENCE)
    first, second = service.submissions("nature")
    batch = service.settle_cost(first.id, "0.25", by="ann")
    assert money(batch.cost) == [("USD", 250_000, 680_000, 0)]
    assert used(service) == Decimal("0.93")
    service.settle_cost(first.id, "0.250 USD", by="bob")  # says nothing new
    service.settle_cost(second.id, "released")
    assert money(service.get_batch_status("nature").cost) == [("USD", 250_000, 0, 0)]
    assert used(service) == Decimal("0.25")
    events = [event for event in service.history("nature") if event.name == "job.settled"]
    assert [event.data["job"]["cost"] for event in events][1] == []
    assert check_journal(service, "nature")[-2:] == ["job.settled", "job.settled"]
    assert service.submissions("nature")[0].settled_by == "ann"
    for word in ("-1", "much", "NaN", "1 usd"):
        with pytest.raises(InvalidRequest, match="--settle"):
            service.settle_cost(first.id, word)
    with pytest.raises(NotFound, match="list those of a batch with sora-batch status BATCH --json"):
        service.settle_cost("nobody", "released")
    with pytest.raises(InvalidRequest, match="was reserved in USD, not in EUR; nothing is converted"):
        service.settle_cost(first.id, "0.25 EUR")


@pytest.mark.parametrize(("since", "by"), [("soon", None), (None, "colour"), (None, "metadata.")])
def test_a_report_that_can_not_be_made_is_refused(service, since, by):
    with pytest.raises(InvalidRequest, match="expected"):
        service.costs(since, by)


def test_a_cost_that_comes_after_its_job_has_ended_is_told(provider, start_service, prices):
    provider.options(prices={"*": PRICE}, tells_price="header")
    provider.hold()
    provider.fault(on="create", do="hang", accept=True, then="answer")
    service = start_service(sora_prices=prices, sora_delete_on_cancel="never")
    service.create_batch(a_request(1, {"amount": 5, "unit": "USD"}))
    running = service.process_batch("nature")
    provider.wait(hanging=1)
    service.cancel_batch("nature")
    assert money(running.result(PATIENCE).cost) == [("USD", 0, 0, 680_000)]
    until(lambda: service._runtime._tools.submitter._unawaited)
    provider.release("requests")
    until(lambda: any(event.name == "job.settled" for event in service.history("nature")))
    (event,) = [event for event in service.history("nature") if event.name == "job.settled"]
    assert event.data["job"]["cost"][0]["charged_micros"] == 680_000
    assert money(service.get_batch_status("nature").cost) == [("USD", 680_000, 0, 0)]


def test_status_shows_what_is_left(provider, start_service, prices, options, tmp_path):
    provider.options(prices={"*": PRICE}, tells_price="cost")
    service = start_service(sora_prices=prices, sora_budget="10 videos per day")
    service.create_batch(a_request(2, {"amount": 5, "unit": "USD"}))
    service.process_batch("nature").result(PATIENCE)
    environment = {"DATABASE_URL": options()["database_url"], "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "actors.cli", "status", "nature"]
    said = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True).stdout
    assert "cost: 1.36 USD charged" in said
    assert "budget of the batch: 3.64 USD left of 5.00 USD\n" in said
    assert "budget: 8 videos left of 10 videos per day\n" in said
    assert service.unfinished().budgets == {"day": 0.2}


@pytest.mark.parametrize("made", [True, False], ids=["it was made", "it was not made"])
def test_an_unknown_outcome_of_an_ended_job_is_resolved_for_the_ledger(provider, start_service, prices, made):
    provider.options(prices={"*": PRICE})
    service = start_service(sora_prices=prices, sora_delete_on_cancel="never", sora_submit_timeout=1000)
    first = service.create_batch({"videos": [{"prompt": "a: first", "duration": 4}], "id": "first"})
    service.process_batch(first.id).result(PATIENCE)  # so that the listing shows a video of ours
    provider.fault(on="create", do="lose_response" if made else "lose_request", match="video 1")
    provider.fault(on="list", do="answer", status=503, times=100)
    service.create_batch(a_request(1, {"amount": 5, "unit": "USD"}))
    running = service.process_batch("nature")
    until(lambda: [each.state for each in service.submissions("nature")] == ["unknown"])
    service.cancel_batch("nature")
    assert money(running.result(PATIENCE).cost) == [("USD", 0, 0, 680_000)]
    provider.clear_faults()
    runtime = service._runtime
    late = LateResolver(
        runtime.io, runtime._tools.submitter.resolve, service._storage, service._recorder, service.settings,
        provider=service.provider,
    )  # fmt: skip
    assert runtime.io.submit(late.resolve()).result(PATIENCE) == 1
    assert money(service.get_batch_status("nature").cost) == ([("USD", 0, 680_000, 0)] if made else [])
    assert used(service) == (Decimal("0.68") if made else 0)
    assert [event.name for event in service.history("nature")][-1] == "job.settled"
    assert runtime.io.submit(late.resolve()).result(PATIENCE) == 0
