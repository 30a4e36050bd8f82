"""Quotes against the bill: what the tests' provider charges, and tells in each of three ways, is what was quoted."""

import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from actors.service import BatchService
from tests.integration.support import PATIENCE
from tests.provider.client import Provider

pytestmark = pytest.mark.integration

TARIFF = {"sora-2": "0.10", "sora-2-pro": "0.30", "*": "0.000000141"}
"""US dollars a second; the last in fractions of a micro."""
UNITS = {"usage.cost": 1, "usage.cost_in_usd_ticks": 10**10, "x-litellm-response-cost": 1}
REQUEST: dict[str, Any] = {
    "defaults": {"duration": 8},
    "matrix": {"model": ["a", "b"]},
    "videos": [
        {"prompt": "Sea {model}", "model": "sora-2", "takes": 2},
        {"prompt": "Sky {model}", "model": "sora-2-pro", "duration": 12},
        {"prompt": "Sun {model}", "model": "another", "duration": 3},
    ],
}


@pytest.mark.parametrize("way", ["cost", "ticks", "header"])
def test_a_quote_is_the_bill_and_what_the_server_tells(
    provider: Provider, start_service: Callable[..., BatchService], tmp_path: Path, way: str
) -> None:
    prices = {model: {"output_cost_per_second": float(price)} for model, price in TARIFF.items()}
    (tmp_path / "prices.json").write_text(json.dumps(prices))
    provider.options(prices=TARIFF, tells_price=way)
    service = start_service(sora_prices=str(tmp_path / "prices.json"))
    quoted = service.quote(REQUEST)
    assert provider.summary()["posts"] == 0
    assert service.list_batches() == []

    batch = service.process_batch(service.create_batch(REQUEST).id, 8).result(PATIENCE)

    assert batch.status == "completed"
    assert quoted.unknown_prices == 0
    bill = Decimal(provider.summary()["billed"])
    submissions = service.submissions(batch.id)
    told = {entry.job_id: _told(entry.told) for entry in submissions}
    assert sum(told.values()) == bill == Decimal("10.400000846")
    assert {entry.charge for entry in submissions} == {"charged"}
    settled = {entry.job_id: _settled(entry.charged_micros, entry.charged_rest) for entry in submissions}
    assert settled == told
    reserved = {entry.job_id: entry.reserved_micros for entry in submissions}
    by_video = {video.index: video.price for video in quoted.videos}
    for job in batch.jobs:
        price = by_video[job.index]
        assert price is not None
        assert 0 <= price.estimated_micros - told[job.id] * 10**6 < 1  # rounded up, once for each video
        assert reserved[job.id] == price.estimated_micros
    (cost,) = quoted.cost
    assert (cost.currency, cost.estimated_micros) == ("USD", 10_400_002)
    assert cost.estimated_micros >= bill * 10**6
    (spent,) = service.get_batch_status(batch.id).cost
    assert (spent.currency, spent.estimated_micros) == (cost.currency, cost.estimated_micros)
    assert abs(spent.charged_micros - bill * 10**6) < 1  # rounded once, for all


def _settled(micros: int | None, rest: int | None) -> Decimal:
    """Millionths of a dollar, and what they leave, in 10^-18."""
    return Decimal(micros or 0).scaleb(-6) + Decimal(rest or 0).scaleb(-18)


def _told(document: Any) -> Decimal:
    ((name, value),) = ((name, document[name]) for name in UNITS if name in document)
    return Decimal(str(value)) / UNITS[name]
