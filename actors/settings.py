"""Settings: one frozen object, read from the environment and `.env`, validated at once, passed down.

Nothing else in the project reads the environment. A bare number is milliseconds here, and only here; a span has a unit.
"""

from __future__ import annotations

import hashlib
from datetime import timedelta
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from actors.errors import SettingsError
from actors.expectations import SIZE_PATTERN, expectation, span_of
from storage.providers import server_of

SIMULATOR = "simulator"
"""The provider of batches whose videos the built-in simulator makes."""


def _duration(value: Any) -> Any:
    length = span_of(value) if isinstance(value, str) else value
    if isinstance(length, timedelta):
        return length
    try:
        length = timedelta(milliseconds=float(value))
    except (OverflowError, TypeError, ValueError):
        raise ValueError("must be a span of time (500ms, 90s, 5m, 12h, 30d) or a number of milliseconds") from None
    if length < timedelta(0):
        raise ValueError("must not be negative")
    return length


def _words(value: Any) -> Any:
    return tuple(word.strip() for word in value.split(",") if word.strip()) if isinstance(value, str) else value


Milliseconds = Annotated[timedelta, BeforeValidator(_duration)]
Positive = Annotated[Milliseconds, Field(gt=timedelta(0))]
Words = Annotated[tuple[str, ...], BeforeValidator(_words)]


class Settings(BaseSettings):
    """What `README.md` lists, each under the name of its environment variable in lower case."""

    model_config = SettingsConfigDict(
        env_file=".env", env_ignore_empty=True, frozen=True, extra="ignore", enable_decoding=False
    )

    openai_base_url: str | None = Field(default=None, repr=False)
    """The server that speaks the Videos API, up to and with its `/v1`. Not shown: it may hold a password."""
    openai_api_key: SecretStr | None = None
    sora_model: str | None = None
    sora_size: str | None = Field(default=None, pattern=SIZE_PATTERN)
    sora_seconds: int | None = Field(default=None, ge=1)
    sora_request_format: Literal["multipart", "json"] = "multipart"
    sora_poll_interval: Positive = timedelta(seconds=2)
    sora_max_in_flight: int | None = Field(default=None, ge=1)
    sora_max_requests_per_second: float | None = Field(default=None, gt=0)
    sora_submit_timeout: Positive = timedelta(seconds=60)
    sora_settle: Milliseconds = timedelta(seconds=5)
    sora_listing: Literal["partial", "whole"] = "partial"
    sora_video_timeout: Positive = timedelta(hours=1)
    sora_paid_attempts: int = Field(default=1, ge=1)
    sora_unknown_submission: Literal["fail", "resubmit"] = "fail"
    sora_delete_on_cancel: Literal["auto", "never"] = "auto"
    sora_reference_hosts: Words = ()
    sora_reference_dirs: Words = ()
    batch_max_size: int = Field(default=10, ge=1, le=10_000)
    batch_concurrency: int = Field(default=3, ge=1)
    batch_parallel: int = Field(default=50, ge=1)
    batch_timeout: Milliseconds = timedelta(minutes=5)
    batch_lease: Positive = timedelta(seconds=15)
    progress_interval: Milliseconds = timedelta(seconds=1)
    database_url: str = Field(default="sqlite:///sora-batch.db", repr=False)
    """Not shown: it may hold a password."""
    amqp_url: SecretStr | None = None
    amqp_queue_type: Literal["quorum", "classic"] = "quorum"
    command_max_bytes: int = Field(default=1_048_576, ge=1024)
    command_keep: Positive = timedelta(days=7)
    video_dir: str = "videos"
    log_level: Literal["debug", "info", "warning", "error", "critical"] = "info"
    log_format: Literal["text", "json"] = "text"

    @field_validator("log_level", "log_format", "amqp_queue_type", "sora_listing", mode="before")
    @classmethod
    def _lower(cls, value: Any) -> Any:
        return value.lower() if isinstance(value, str) else value

    @field_validator("openai_base_url")
    @classmethod
    def _http(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("http://", "https://")):
            raise ValueError("must start with http:// or https://")
        return value.rstrip("/") if value else value

    @field_validator("batch_lease")
    @classmethod
    def _longer_than_its_margin(cls, value: timedelta) -> timedelta:
        if value < timedelta(seconds=5):
            raise ValueError("must be 5s or more: an owner stops trusting its lease 3 s before it ends")
        return value

    @property
    def api_key(self) -> str | None:
        """The key in plain text, for the one header that carries it."""
        return self.openai_api_key.get_secret_value() if self.openai_api_key else None

    @property
    def provider(self) -> str:
        """Where videos are made, and with which key: the base URL and the key's fingerprint in one text.

        It is recorded: a password in the URL counts as part of the key.
        """
        if self.openai_base_url is None:
            raise SettingsError(NO_SERVER)
        return f"{masked_url(self.openai_base_url)}#{self.key_fingerprint}"

    @property
    def server(self) -> str | None:
        """The base URL as servers are told apart by it: without user, query and key; None where none is named."""
        return None if self.openai_base_url is None else server_of(self.openai_base_url)

    @property
    def key_fingerprint(self) -> str:
        """What tells two keys of one server apart, without telling either."""
        secret = (self.api_key or "") + (password_of(self.openai_base_url or "") or "")
        return hashlib.sha256(secret.encode()).hexdigest()[:12]


NO_SERVER = (
    "OPENAI_BASE_URL is not set: name a server that speaks the Videos API (vLLM-Omni, SGLang, a LiteLLM proxy, ...), "
    "for example OPENAI_BASE_URL=http://localhost:8000/v1, or use --simulate. OpenAI's own hosted Videos API was "
    "listed for removal on 2026-09-24, so there is no default"
)


def masked_url(url: str) -> str:
    """The URL with `***` for its password; for all before its host where it is no URL that could be read."""
    password = password_of(url)
    if password:
        return url.replace(f":{password}@", ":***@")
    return url if _has_host(url) or "@" not in url else f"***@{url.rpartition('@')[2]}"


def _has_host(url: str) -> bool:
    try:
        return bool(urlsplit(url).netloc)
    except ValueError:
        return False


def password_of(url: str) -> str | None:
    """The password in a URL, as it is written; None if it has none, or is none."""
    try:
        return urlsplit(url).password
    except ValueError:
        return None


def load_settings(**changes: Any) -> Settings:
    """Read the environment and `.env`.

    Raises:
        SettingsError: a value can't be used; the text names the variable, the value and what is expected.
    """
    try:
        return Settings(**changes)
    except UnicodeDecodeError as error:
        raise SettingsError(f"the file .env is not UTF-8 (byte {error.start}): save it as UTF-8") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = str(first["loc"][0]).upper()
        given = repr(first["input"])
        secret = name in {"OPENAI_API_KEY", "AMQP_URL", "DATABASE_URL"} or (name == "OPENAI_BASE_URL" and "@" in given)
        # Without its cause: pydantic shows what was given.
        raise SettingsError(f"{name}={'***' if secret else given}: {expectation(first)}") from None
