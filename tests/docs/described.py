"""Holds what is told against docs/schemas, where nothing may be there that is not described."""

import functools
import json
from typing import Any

from jsonschema import Draft202012Validator

from tests.docs.asyncapi_document import SCHEMAS, strict


@functools.cache
def _validator(kind: str) -> Draft202012Validator:
    return Draft202012Validator(strict(json.loads((SCHEMAS / f"{kind}.json").read_text())))


def check_described(document: dict[str, Any]) -> None:
    """The document is as its schema says."""
    _validator(document["type"]).validate(document)
