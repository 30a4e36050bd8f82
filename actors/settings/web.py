"""The settings of what is answered by HTTP."""

from __future__ import annotations

from pydantic import SecretStr, field_validator
from pydantic_settings import BaseSettings

from actors.transport import read_listen, read_public_url


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
        return None if value is None else read_public_url(value)

    @field_validator("web_token")
    @classmethod
    def _sendable(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None:
            return None
        token = value.get_secret_value().strip()
        if not (token and token.isascii() and token.isprintable() and " " not in token):
            raise ValueError("must be one word of ASCII letters, digits and signs: it is sent in a header")
        return SecretStr(token)
