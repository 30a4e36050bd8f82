"""Settings: one frozen object, read from the environment and `.env`, validated at once, passed down.

Nothing else in the project reads the environment. A bare number is in milliseconds, only here; a duration may have a
unit.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, Self
from urllib.parse import quote, urlsplit

from pydantic import Field, SecretStr, ValidationError, field_serializer, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from actors.errors import SettingsError
from actors.expectations import SIZE_PATTERN, expectation
from actors.settings.groups import KeepSettings, MoneySettings, StoreSettings, WebSettings
from actors.settings.server import ServerSettings
from actors.settings.values import (
    Hosts,
    Milliseconds,
    Positive,
    Words,
    at_home,
    one_line,
    with_files,
    without_control_characters,
)
from actors.transport import is_bypassed, read_proxy, secrets_in, trust
from storage.secrets import Secrets
from storage.urls import HIDDEN, masked_url

if TYPE_CHECKING:
    import ssl

SECRET = frozenset({"OPENAI_API_KEY", "SORA_HEADERS", "WEB_TOKEN"})
URLS = frozenset(
    {"OPENAI_BASE_URL", "DATABASE_URL", "AMQP_URL", "HTTP_PROXY", "HTTPS_PROXY", "VIDEO_STORE", "WEB_PUBLIC_URL"}
    | {"SORA_REFERENCE_HOSTS"}
)
"""The settings that are shown masked, and those that are shown without their secret parts."""
GENERAL = frozenset({"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"})
"""The settings that other programs have too: what is called almost like one of them may be theirs."""
_LONGEST_AUTH = 24
"""Characters of a `SORA_AUTH` that can't be used and is shown all the same: in a longer one a key may stand."""


class Settings(ServerSettings, WebSettings, MoneySettings, StoreSettings, KeepSettings):
    """The settings that `README.md` lists, each named as its environment variable in lower case."""

    model_config = SettingsConfigDict(
        env_file=".env", env_file_encoding="utf-8-sig", env_ignore_empty=True, frozen=True, extra="ignore",
        enable_decoding=False, hide_input_in_errors=True,
    )  # fmt: skip

    sora_model: str | None = None
    sora_size: str | None = Field(default=None, pattern=SIZE_PATTERN)
    sora_seconds: int | None = Field(default=None, ge=1)
    sora_request_format: Literal["multipart", "json"] = "multipart"
    sora_poll_interval: Positive = timedelta(seconds=2)
    sora_max_in_flight: int | None = Field(default=None, ge=1)
    sora_max_requests_per_second: float | None = Field(default=None, gt=0)
    sora_connect_timeout: Milliseconds = timedelta(seconds=10)
    """If it is not set, `serve` waits for ever."""
    sora_submit_timeout: Positive = timedelta(seconds=60)
    sora_settle: Milliseconds = timedelta(seconds=5)
    sora_listing: Literal["partial", "whole"] = "partial"
    sora_video_timeout: Positive = timedelta(hours=1)
    sora_paid_attempts: int = Field(default=1, ge=1)
    sora_unknown_submission: Literal["fail", "resubmit"] = "fail"
    sora_delete_on_cancel: Literal["auto", "never"] = "auto"
    sora_reference_hosts: Hosts = ()
    sora_reference_dirs: Words = ()
    batch_max_size: int = Field(default=10, ge=1, le=10_000)
    batch_concurrency: int = Field(default=3, ge=1)
    batch_parallel: int = Field(default=50, ge=1)
    batch_timeout: Milliseconds = timedelta(minutes=5)
    batch_lease: Positive = timedelta(seconds=15)
    progress_interval: Milliseconds = timedelta(seconds=1)
    database_url: str = Field(default="sqlite:///sora-batch.db", repr=False)
    """Not shown: it may contain a password."""
    database_url_file: str | None = None
    amqp_url: SecretStr | None = None
    amqp_url_file: str | None = None
    """With WEB_TOKEN_FILE, these name a file to read the setting from."""
    amqp_queue_type: Literal["quorum", "classic"] = "quorum"
    command_max_bytes: int = Field(default=1_048_576, ge=1024)
    command_keep: Positive = timedelta(days=7)
    video_dir: str = "videos"
    http_proxy: str | None = Field(default=None, repr=False)
    https_proxy: str | None = Field(default=None, repr=False)
    no_proxy: str | None = None
    ssl_cert_file: str | None = None
    ssl_cert_dir: str | None = None
    requests_ca_bundle: str | None = None
    """Other programs use these six too: they are read only when a server is to be reached."""
    log_level: Literal["debug", "info", "warning", "error", "critical"] = "info"
    log_format: Literal["text", "json"] = "text"

    @field_validator("log_level", "log_format", "amqp_queue_type", "sora_listing", mode="before")
    @classmethod
    def _lower(cls, value: Any) -> Any:
        return value.lower() if isinstance(value, str) else value

    @model_validator(mode="before")
    @classmethod
    def _stripped(cls, given: Any) -> Any:
        """Strip white space around values: many files end with a line break. A value of nothing else is unset."""
        stripped = {name: value.strip() if isinstance(value, str) else value for name, value in given.items()}
        return with_files({name: value for name, value in stripped.items() if value != "" or given[name] == ""})

    @field_validator("amqp_url")
    @classmethod
    def _one_line_too(cls, value: SecretStr | None) -> SecretStr | None:
        return None if value is None else one_line(value)

    @field_validator("database_url")
    @classmethod
    def _kept(cls, value: str) -> str:
        path = without_control_characters(value).removeprefix("sqlite:///")
        if path in {":memory:", "", "sqlite://"}:
            raise ValueError(
                "is a database that is lost when the process ends: name a file, such as sqlite:///sora-batch.db"
            )
        if path == value or not path.startswith(("~", "$")):
            return value
        home, slash, rest = path.partition("/")
        return f"sqlite:///{quote(at_home(home))}{slash}{rest}"

    @field_validator("video_dir", "sora_reference_dirs", "ssl_cert_file", "ssl_cert_dir", "requests_ca_bundle")
    @classmethod
    def _paths(cls, value: str | tuple[str, ...] | None) -> str | tuple[str, ...] | None:
        if value is None:
            return None
        return at_home(value) if isinstance(value, str) else tuple(map(at_home, value))

    @field_validator("batch_lease")
    @classmethod
    def _longer_than_its_margin(cls, value: timedelta) -> timedelta:
        if value < timedelta(seconds=5):
            raise ValueError("must be 5s or more: an owner stops trusting its lease 3 s before it ends")
        return value

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy with some changed. What follows from them, such as `provider`, is worked out anew."""
        copied = super().model_copy(update=update, deep=deep)
        for name in copied.__dict__.keys() - type(self).model_fields.keys():
            del copied.__dict__[name]
        return copied

    @cached_property
    def secrets(self) -> Secrets:
        """All secrets, with their mask."""
        amqp = self.amqp_url.get_secret_value() if self.amqp_url else ""
        headers = self.sora_headers.get_secret_value() if self.sora_headers else ""
        urls = [self.openai_base_url, self.database_url, amqp, self.http_proxy, self.https_proxy]
        token = self.web_token.get_secret_value() if self.web_token else ""
        return Secrets([self.api_key or "", token, *secrets_in(headers), *self.bucket_secrets], filter(None, urls))

    def proxy_for(self, url: str) -> str | None:
        """The proxy for a request to this URL; None: none.

        Raises:
            SettingsError: its proxy can't be used.
        """
        scheme = urlsplit(url).scheme
        given = {"http": self.http_proxy, "https": self.https_proxy}.get(scheme)
        if given is None or (self.no_proxy and is_bypassed(url, self.no_proxy)):
            return None
        try:
            return read_proxy(given)
        except ValueError as error:
            raise SettingsError(f"{scheme.upper()}_PROXY={masked_url(given)}: {error}") from None

    @property
    def trust(self) -> ssl.SSLContext | None:
        """The certificates that verify a server's; None: the system's.

        Raises:
            SettingsError: one of their files can't be used.
        """
        if not (self.ssl_cert_file or self.ssl_cert_dir or self.requests_ca_bundle):
            return None
        try:
            return trust(self.ssl_cert_file, self.ssl_cert_dir, self.requests_ca_bundle)
        except OSError as error:
            named = {"SSL_CERT_FILE": self.ssl_cert_file, "REQUESTS_CA_BUNDLE": self.requests_ca_bundle}
            given = " and ".join(f"{name}={path!r}" for name, path in named.items() if path)
            raise SettingsError(f"{given}: can't read certificates from it: {error.strerror or error}") from None

    @field_serializer("openai_base_url", "database_url", "http_proxy", "https_proxy")
    def _masked(self, value: str | None) -> str | None:
        return masked_url(value) if value else value


def load_settings(**changes: Any) -> Settings:
    """Read the environment and `.env`.

    Raises:
        SettingsError: a value can't be used; the text names the variable, the value and what is expected.
    """
    try:
        return Settings(**changes)
    except UnicodeDecodeError as error:
        raise SettingsError(f"the file .env is not valid UTF-8 (byte {error.start}): save it as UTF-8") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = str(first["loc"][0]).upper()
        given = first["input"]
        secret = name in SECRET | {"AMQP_URL"} or (name in URLS and masked_url(str(given)) != given)
        secret = secret or (name == "SORA_AUTH" and len(str(given)) > _LONGEST_AUTH)
        # Without its cause: pydantic shows what was given.
        shown = HIDDEN if secret else Secrets().mask(repr(given))
        raise SettingsError(f"{name}={shown}: {expectation(first)}") from None
