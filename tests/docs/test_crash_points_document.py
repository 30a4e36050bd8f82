"""docs/crash-points.md says what the table says."""

from tests.docs.crash_points_document import DOCUMENT, document


def test_the_document_is_what_the_table_says() -> None:
    assert DOCUMENT.read_text() == document(), "it is stale: run python -m tests.docs.crash_points_document"
