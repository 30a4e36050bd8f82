"""Ways out for errors of servers that do not name one themselves. Pure."""

from __future__ import annotations

import re
from typing import NamedTuple

from actors.errors import ErrorCode

_MODEL = "set SORA_MODEL or the request's model to one that the server lists"


class Advice(NamedTuple):
    """What to do about an error."""

    way_out: str
    code: ErrorCode | None = None
    """Its real code, where its HTTP status is misleading."""


NEEDS_PROVIDER = Advice(
    "LiteLLM lists only the videos of the provider that a header names: set SORA_HEADERS="
    "'custom-llm-provider: PROVIDER' (hosted_vllm, openai, ...), and set that provider's API base at the proxy"
)
_KNOWN = {
    "llm provider not provided": NEEDS_PROVIDER,
    "no connected db": Advice(
        "a LiteLLM proxy without a database answers this to an unknown key: check OPENAI_API_KEY",
        ErrorCode.AUTHENTICATION,
    ),
    "--api-server-count": Advice(
        "start vLLM-Omni with --api-server-count 1, because each worker knows only its own videos"
    ),
    "invalid model name": Advice(_MODEL, ErrorCode.INVALID_REQUEST),
    "model mismatch": Advice(_MODEL, ErrorCode.INVALID_REQUEST),
    "model not found": Advice(_MODEL, ErrorCode.INVALID_REQUEST),
    "model_not_found": Advice(_MODEL, ErrorCode.INVALID_REQUEST),
}
_NO_SUCH_MODEL = re.compile(r"\bmodel\b.{1,300}\bdoes not exist\b")
"""OpenAI's words, and vLLM's."""
PROXY = Advice("the proxy requires a user and a password: set HTTP_PROXY=http://USER:PASSWORD@HOST:PORT")


def advice(status: int, message: str) -> Advice | None:
    """The advice for an error of a server, by its words and code; None: its own words must do."""
    if status == 407:
        return PROXY
    words = message.lower()
    if _NO_SUCH_MODEL.search(words):
        known: Advice | None = _KNOWN["model not found"]
    else:
        known = next((found for part, found in _KNOWN.items() if part in words), None)
    # OpenAI words a 403 for a model alike; it stops the jobs with that model.
    return known._replace(code=None) if known is not None and status == 403 else known
