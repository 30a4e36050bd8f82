"""Groups of settings: HTTP, money, the store of finished files, and how long things are kept."""

from __future__ import annotations

import os
import re
from datetime import timedelta
from functools import cached_property
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import SecretStr, field_validator
from pydantic_settings import BaseSettings

from actors.expectations import read_budget, read_ceilings
from actors.settings.values import Positive, at_home

_BUCKET = re.compile(r"(s3|gs|az)://[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9._-]+)*/*")
_OPTIONS = ("AWS_", "GOOGLE_", "AZURE_")
_SECRET = ("SECRET", "TOKEN", "PASSWORD", "SAS", "ACCOUNT_KEY", "STORAGE_KEY", "ACCESS_KEY")
_SHOWN = "ACCESS_KEY_ID"
_SHORTEST = timedelta(hours=1)


class WebSettings(BaseSettings):
    """Where and for whom HTTP is answered."""

    web_listen: str | None = None
    """`[HOST:]PORT`: where `serve` answers HTTP."""
    web_public_url: str | None = None
    """Where others reach what is answered by HTTP, such as `https://videos.example.com`; without the final `/`."""
    web_token: SecretStr | None = None
    web_token_file: str | None = None
    web_read_only: bool = False
    """Whether HTTP requests may only read."""

    @field_validator("web_listen")
    @classmethod
    def _listens(cls, value: str | None) -> str | None:
        if value is not None:
            read_listen(value)
        return value

    @field_validator("web_public_url")
    @classmethod
    def _reached(cls, value: str | None) -> str | None:
        if value is None:
            return None
        try:
            parts = urlsplit(value)
            usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
            usable = usable and parts.username is None
        except ValueError:
            usable = False
        if not usable or not value.isprintable() or {" ", "?", "#"} & set(value):
            raise ValueError(
                "must be an http:// or https:// URL without user, query and fragment, "
                "such as https://videos.example.com"
            )
        return value.rstrip("/")

    @field_validator("web_token")
    @classmethod
    def _sendable(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None:
            return None
        token = value.get_secret_value().strip()
        if not (token and token.isascii() and token.isprintable() and " " not in token):
            raise ValueError("must be one word of ASCII letters, digits and signs: it is sent in a header")
        return SecretStr(token)


def read_listen(text: str) -> tuple[str, int]:
    """Where to listen, `[HOST:]PORT`: without a host, only this machine reaches it. Port 0: any that is free.

    Raises:
        ValueError: it is no such place.
    """
    host, _, port = text.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    named = bare or ":" not in text
    if not (named and port.isascii() and port.isdigit() and int(port) < 65_536) or (":" in bare and bare == host):
        raise ValueError("must be PORT or HOST:PORT, such as 8080, 127.0.0.1:8080 or [::1]:8080")
    return bare or "127.0.0.1", int(port)


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


class StoreSettings(BaseSettings):
    """Where finished files are put."""

    video_store: str | None = None
    """`s3://bucket/prefix`, `gs://...`, `az://...`, or `file:///folder`; without it, the folder VIDEO_DIR."""

    @field_validator("video_store")
    @classmethod
    def _addressed(cls, value: str | None) -> str | None:
        if value is None:
            return None
        if value.startswith("file:"):
            path = at_home(value.removeprefix("file://"))
            if not path.startswith("/"):
                raise ValueError("must be an absolute path, such as file:///srv/videos")
            return f"file://{path.rstrip('/') or '/'}"
        if not _BUCKET.fullmatch(value):
            raise ValueError(
                "must be s3://bucket/prefix, gs://bucket/prefix, az://container/prefix or file:///folder "
                "(of letters, digits, `.`, `_` and `-`)"
            )
        return value.rstrip("/")

    @cached_property
    def bucket_options(self) -> dict[str, str]:
        """The credentials and the endpoint of buckets, by the names of environment variables."""
        return _read_options(self.model_config.get("env_file"))

    @property
    def bucket_secrets(self) -> list[str]:
        """Those of them that must not be shown, where a bucket is the store."""
        if self.video_store is None or self.video_store.startswith("file:"):
            return []
        return [
            value
            for name, value in self.bucket_options.items()
            if any(word in name for word in _SECRET) and not name.endswith(_SHOWN)
        ]


def _read_options(env_file: Any) -> dict[str, str]:
    """What the environment and `.env` say of object stores; the environment takes precedence."""
    from dotenv import dotenv_values

    in_file = dotenv_values(env_file, encoding="utf-8-sig") if isinstance(env_file, str) else {}
    both = {name.upper(): value for source in (in_file, os.environ) for name, value in source.items() if value}
    return {name: value.strip() for name, value in both.items() if name.startswith(_OPTIONS)}


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
