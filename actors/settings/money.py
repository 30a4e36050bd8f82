"""The settings of what videos cost."""

from __future__ import annotations

from typing import Literal

from pydantic import field_validator
from pydantic_settings import BaseSettings

from actors.budgets import read_budget, read_ceilings
from actors.settings.types import at_home


class MoneySettings(BaseSettings):
    """Where prices are, and what may be spent."""

    sora_prices: str | None = None
    """A JSON or YAML file of prices: `{model: {output_cost_per_second: ...}}`, such as LiteLLM's public table."""

    sora_charges_failed: Literal["yes", "no"] = "yes"
    """Whether a generation that failed is charged for where the server tells nothing."""
    sora_budget_wait: Literal["yes", "no"] = "no"
    """Whether `serve` waits for the next period of a budget that is used up, instead of failing what does not fit."""
    batch_budget: str | None = None
    """The most that a batch may use whose request says nothing, such as `20 USD, 300 seconds`."""

    sora_budget: str | None = None
    """What the whole database may spend, such as `50 USD per day, 2000 seconds per month`; `none` removes all."""

    @field_validator("sora_budget")
    @classmethod
    def _are_ceilings(cls, value: str | None) -> str | None:
        if value is not None:
            read_ceilings(value)
        return value

    @field_validator("batch_budget")
    @classmethod
    def _is_budget(cls, value: str | None) -> str | None:
        if value is not None:
            read_budget(value)
        return value

    @field_validator("sora_charges_failed", "sora_budget_wait", mode="before")
    @classmethod
    def _yes_or_no(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value

    @field_validator("sora_prices")
    @classmethod
    def _at_home(cls, value: str | None) -> str | None:
        return None if value is None else at_home(value)
