"""Settings: one frozen object, read from the environment and `.env`, validated at once, passed down.

Nothing else in the project reads the environment. A bare number is in milliseconds, only here; a duration may have a
unit.
"""

from __future__ import annotations

import hashlib
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote, urlsplit

from pydantic import (
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_serializer,
    field_validator,
    model_validator,
)
from pydantic_settings import SettingsConfigDict

from actors.errors import SettingsError
from actors.expectations import SIZE_PATTERN, expectation
from actors.headers import AUTHORIZATION, BEARER, NOWHERE, key_header, read_auth, read_headers, secrets_in, telling
from actors.secret_files import with_files
from actors.settings.files import KeepSettings
from actors.settings.money import MoneySettings
from actors.settings.store import StoreSettings
from actors.settings.types import Milliseconds, Positive, Words, at_home, without_control_characters
from actors.settings.web import WebSettings
from actors.transport import is_bypassed, read_proxy, trust
from storage.secrets import HIDDEN, Secrets, key_in, masked_url, query_secrets, read_url
from storage.servers import server_of

if TYPE_CHECKING:
    import ssl

SIMULATOR = "simulator"
"""The provider of batches whose videos the built-in simulator makes."""


_ESCAPED = "in the user name and password, write @ as %40, # as %23, / as %2F, ? as %3F"


class Settings(WebSettings, MoneySettings, StoreSettings, KeepSettings):
    """The settings that `README.md` lists, each named as its environment variable in lower case."""

    model_config = SettingsConfigDict(
        env_file=".env", env_file_encoding="utf-8-sig", env_ignore_empty=True, frozen=True, extra="ignore",
        enable_decoding=False, hide_input_in_errors=True,
    )  # fmt: skip

    openai_base_url: str | None = Field(default=None, repr=False)
    """The server that speaks the Videos API, up to and including `/v1`. Not shown: it may contain a password."""
    sora_auth: str = "bearer"
    """How the key is sent: `bearer`, `header:NAME`, or `none`."""
    openai_api_key: SecretStr | None = None
    openai_api_key_file: str | None = None
    sora_headers: SecretStr | None = None
    """Additional headers of each request to the server."""
    sora_headers_file: str | None = None
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
    sora_reference_hosts: Words = ()
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

    @field_validator("openai_base_url")
    @classmethod
    def _http(cls, value: str | None) -> str | None:
        if value is None:
            return value
        if not value.startswith(("http://", "https://")):
            raise ValueError("must start with http:// or https://")
        if any(character.isspace() for character in without_control_characters(value)):
            raise ValueError("must not contain white space")
        if "#" in value:
            raise ValueError(f"must not contain # (a fragment is never sent to a server); {_ESCAPED}")
        try:
            parts = urlsplit(value)
            host = parts.hostname if parts.port != 0 else None
        except ValueError:
            host = None
        meant = read_url(value)
        if host is None or not {"/", "?"}.isdisjoint((meant.user or "") + (meant.password or "")):
            raise ValueError(f"must be a URL such as http://localhost:8000/v1; {_ESCAPED}")
        address, question, query = value.partition("?")
        return f"{address.rstrip('/')}{question if query else ''}{query}"

    @field_validator("sora_auth")
    @classmethod
    def _auth(cls, value: str) -> str:
        return read_auth(value)

    @field_validator("sora_headers")
    @classmethod
    def _headers(cls, value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        named = {name.lower(): name for name in read_headers(value.get_secret_value())} if value else {}
        carrier = key_header(info.data.get("sora_auth", BEARER)) if info.data.get("openai_api_key") else None
        if carrier is not None and carrier.lower() in named:
            raise ValueError(
                f"sets {named[carrier.lower()]}, which carries OPENAI_API_KEY: unset one of them, or set SORA_AUTH"
            )
        if AUTHORIZATION in named and _has_user(info):
            raise ValueError("sets Authorization, which carries the user in OPENAI_BASE_URL: remove one of them")
        return value

    @field_validator("openai_api_key", "amqp_url")
    @classmethod
    def _one_line(cls, value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if value is None:
            return value
        # Passed as a SecretStr, it was not stripped.
        value = SecretStr(without_control_characters(value.get_secret_value().strip()))
        carrier = key_header(info.data.get("sora_auth", BEARER))
        if info.field_name == "openai_api_key" and (carrier or "").lower() == AUTHORIZATION and _has_user(info):
            raise ValueError(
                "can't be sent together with the user in OPENAI_BASE_URL, since both use one header: "
                "unset it, or remove the user from the URL"
            )
        return value

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

    @property
    def api_key(self) -> str | None:
        """The key in plain text, for the one header that carries it."""
        return self.openai_api_key.get_secret_value() if self.openai_api_key else None

    @cached_property
    def headers(self) -> dict[str, str]:
        """The headers of `SORA_HEADERS`, by name."""
        return read_headers(self.sora_headers.get_secret_value()) if self.sora_headers else {}

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

    @property
    def provider(self) -> str:
        """Where videos are made, and with which key: the base URL and the key's fingerprint in one text.

        It is recorded; a password in the URL counts as part of the key.
        """
        if self.openai_base_url is None:
            raise SettingsError(NO_SERVER)
        return f"{masked_url(self.openai_base_url)}#{self.key_fingerprint}"

    @property
    def server(self) -> str | None:
        """The base URL that identifies the server: without user, query and key; None if none is set."""
        return None if self.openai_base_url is None else server_of(self.openai_base_url)

    @property
    def key_fingerprint(self) -> str:
        """Distinguishes two keys, or accounts, of one server without revealing them.

        Includes a key in a query or in a header of `SORA_HEADERS`. Without these it is what it always was.
        """
        url = self.openai_base_url or ""
        secret = (self.api_key or "" if self.sora_auth != NOWHERE else "") + key_in(url)
        told = [*query_secrets(url), telling(self.headers, keyed=bool(secret))]
        secret = "\n".join([secret, *filter(None, told)])
        return hashlib.sha256(secret.encode()).hexdigest()[:12]


NO_SERVER = (
    "OPENAI_BASE_URL is not set: set it to a server that speaks the Videos API (vLLM-Omni, SGLang, a LiteLLM proxy, "
    "...), for example OPENAI_BASE_URL=http://localhost:8000/v1, or use --simulate. OpenAI's own hosted Videos API was "
    "listed for removal on 2026-09-24, so there is no default"
)


def _has_user(info: ValidationInfo) -> bool:
    return read_url(info.data.get("openai_base_url") or "").user is not None


SECRET = frozenset({"OPENAI_API_KEY", "SORA_HEADERS", "WEB_TOKEN"})
URLS = frozenset(
    {"OPENAI_BASE_URL", "DATABASE_URL", "AMQP_URL", "HTTP_PROXY", "HTTPS_PROXY", "VIDEO_STORE", "WEB_PUBLIC_URL"}
)
"""The settings that are shown masked, and those that are shown without their secret parts."""
GENERAL = frozenset({"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"})
"""The settings that other programs have too: what is called almost like one of them may be theirs."""

_LONGEST_AUTH = 24
"""Characters of a `SORA_AUTH` that can't be used and is shown all the same: in a longer one a key may stand."""


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
