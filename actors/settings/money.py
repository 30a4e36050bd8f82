"""The settings of what videos cost."""

from __future__ import annotations

from pydantic import field_validator
from pydantic_settings import BaseSettings

from actors.settings.types import at_home


class MoneySettings(BaseSettings):
    """Where prices are."""

    sora_prices: str | None = None
    """A JSON or YAML file of prices: `{model: {output_cost_per_second: ...}}`, such as LiteLLM's public table."""

    @field_validator("sora_prices")
    @classmethod
    def _at_home(cls, value: str | None) -> str | None:
        return None if value is None else at_home(value)
