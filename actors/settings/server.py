"""The settings of the server that makes the videos: its address, the key, and how both are sent."""

from __future__ import annotations

import hashlib
from functools import cached_property
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import BaseSettings

from actors.errors import SettingsError
from actors.settings.values import one_line, without_control_characters
from actors.transport import AUTHORIZATION, BEARER, NOWHERE, key_header, read_auth, read_headers, telling
from storage.urls import key_in, masked_url, query_secrets, read_url, server_of

SIMULATOR = "simulator"
"""The provider of batches whose videos the built-in simulator makes."""
NO_SERVER = (
    "OPENAI_BASE_URL is not set: set it to a server that speaks the Videos API (vLLM-Omni, SGLang, a LiteLLM proxy, "
    "...), for example OPENAI_BASE_URL=http://localhost:8000/v1, or use --simulate. OpenAI's own hosted Videos API was "
    "listed for removal on 2026-09-24, so there is no default"
)
_ESCAPED = "in the user name and password, write @ as %40, # as %23, / as %2F, ? as %3F"


class ServerSettings(BaseSettings):
    """Where videos are made, and as whom."""

    openai_base_url: str | None = Field(default=None, repr=False)
    """The server that speaks the Videos API, up to and including `/v1`. Not shown: it may contain a password."""
    sora_auth: str = "bearer"
    """How the key is sent: `bearer`, `header:NAME`, or `none`."""
    openai_api_key: SecretStr | None = None
    openai_api_key_file: str | None = None
    sora_headers: SecretStr | None = None
    """Additional headers of each request to the server."""
    sora_headers_file: str | None = None

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

    @field_validator("openai_api_key")
    @classmethod
    def _one_line(cls, value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if value is None:
            return value
        carrier, value = key_header(info.data.get("sora_auth", BEARER)), one_line(value)
        if (carrier or "").lower() == AUTHORIZATION and _has_user(info):
            raise ValueError(
                "can't be sent together with the user in OPENAI_BASE_URL, since both use one header: "
                "unset it, or remove the user from the URL"
            )
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

    @cached_property
    def key_fingerprint(self) -> str:
        """Distinguishes two keys, or accounts, of one server without revealing them.

        Includes a key in a query or in a header of `SORA_HEADERS`. Without these it is what it always was.
        """
        url = self.openai_base_url or ""
        secret = (self.api_key or "" if self.sora_auth != NOWHERE else "") + key_in(url)
        told = [*query_secrets(url), telling(self.headers, keyed=bool(secret))]
        secret = "\n".join([secret, *filter(None, told)])
        return hashlib.sha256(secret.encode()).hexdigest()[:12]


def _has_user(info: ValidationInfo) -> bool:
    return read_url(info.data.get("openai_base_url") or "").user is not None
