"""The settings of how long files and histories are kept."""

from __future__ import annotations

from datetime import timedelta

from pydantic import field_validator
from pydantic_settings import BaseSettings

from actors.settings.types import Positive

_SHORTEST = timedelta(hours=1)


class KeepSettings(BaseSettings):
    """After which span `serve` removes what ended batches have left."""

    video_keep: Positive | None = None
    """Files of finished videos, from the end of their batch on. None: for ever."""
    history_keep: Positive | None = None
    """Histories, from the end of their batch on. None: for ever."""

    @field_validator("video_keep", "history_keep")
    @classmethod
    def _long_enough(cls, value: timedelta | None) -> timedelta | None:
        if value is not None and value < _SHORTEST:
            raise ValueError("must be 1h or more, such as 30d")
        return value
