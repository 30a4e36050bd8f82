"""The settings of the store of finished files."""

from __future__ import annotations

import os
import re
from functools import cached_property
from typing import Any

from pydantic import field_validator
from pydantic_settings import BaseSettings

from actors.settings.types import at_home

_BUCKET = re.compile(r"(s3|gs|az)://[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9._-]+)*/*")
_OPTIONS = ("AWS_", "GOOGLE_", "AZURE_")
_SECRET = ("SECRET", "TOKEN", "PASSWORD", "SAS", "ACCOUNT_KEY", "STORAGE_KEY", "ACCESS_KEY")
_SHOWN = "ACCESS_KEY_ID"


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
