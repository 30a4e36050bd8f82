"""docs/states.md says what the tables say."""

from actors.batch.transitions import BatchMove, JobMove
from storage.states import BatchStatus, JobStatus, SubmissionState
from tests.docs.states_document import DOCUMENT, document, meanings


def test_the_document_is_what_the_tables_say() -> None:
    assert DOCUMENT.read_text() == document(), "it is stale: run python -m tests.docs.states_document"


def test_every_state_and_move_has_a_meaning() -> None:
    for words in (BatchStatus, JobStatus, SubmissionState, BatchMove, JobMove):
        assert set(meanings(words)) == set(words)
        assert all(meaning.endswith(".") for meaning in meanings(words).values())
