"""The description of the messages is that of the code, and the official parser takes it."""

import json
import re

import pytest
from jsonschema import ValidationError

from actors.rabbitmq.codec import Message, parse
from tests.docs.asyncapi_document import DOCUMENT, FOLDER, SCHEMAS, files, strict
from tests.docs.described import check_described
from tests.javascript.node import node


def test_the_description_is_what_the_code_says() -> None:
    stale = [path.name for path, text in files().items() if not path.exists() or path.read_text() != text]
    stale += [path.name for path in SCHEMAS.iterdir() if path not in files()]
    assert not stale, "stale: run python -m tests.docs.asyncapi_document"


@pytest.mark.integration
def test_the_official_parser_finds_nothing_wrong() -> None:
    parsed = node("parse.js", str(DOCUMENT))
    assert parsed.stdout == f"{len(files()) - 1} messages\n", parsed.stderr
    assert parsed.returncode == 0


@pytest.mark.integration
def test_the_official_parser_would_find_it() -> None:
    broken = SCHEMAS.parent / ".broken.yaml"
    try:
        broken.write_text(DOCUMENT.read_text().replace("action: receive", "action: shout"))
        parsed = node("parse.js", str(broken))
    finally:
        broken.unlink()
    assert parsed.returncode == 1
    assert "operations/takeCommands" in parsed.stdout


def test_the_command_in_the_document_is_as_described() -> None:
    (text,) = re.findall(r"^```json\n(.*?)^```$", (FOLDER / "rabbitmq.md").read_text(), re.MULTILINE | re.DOTALL)
    check_described(json.loads(text))
    parse(Message(text.encode(), "create"), max_bytes=10_000, max_size=10)


@pytest.mark.parametrize(
    "data",
    [
        {"batch_id": "no id"},
        {"batch_id": "a", "concurrency": 0},
        {"batch_id": "a", "concurrency": True},
        {"more": 1},
        {},
    ],
)
def test_what_the_service_refuses_the_schema_refuses(data: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        check_described(
            {"specversion": "1.0", "id": "1", "source": "/shop", "type": "sora-batch.process.v1", "data": data}
        )


def test_strict_refuses_what_is_not_described() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "object", "properties": {}}}}
    assert strict(schema)["additionalProperties"] is False
    assert strict(schema)["properties"]["a"]["additionalProperties"] is False
