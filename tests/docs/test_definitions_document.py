"""docs/rabbitmq-definitions.json is what the program declares."""

from tests.docs.definitions_document import DOCUMENT, document


def test_the_document_is_what_is_declared() -> None:
    assert DOCUMENT.read_text() == document(), "it is stale: run python -m tests.docs.definitions_document"
