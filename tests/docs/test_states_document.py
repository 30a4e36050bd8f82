"""docs/states.md says what the tables say, and the tables cover everything that it prints."""

from itertools import product

from actors.lifecycle import BATCH_MOVES, JOB_MOVES, BatchMove, JobMove
from storage.states import BatchStatus, JobStatus, SubmissionState
from tests.docs.states_document import DOCUMENT, document, meanings


def test_the_document_is_what_the_tables_say() -> None:
    assert DOCUMENT.read_text() == document(), "it is stale: run python -m tests.docs.states_document"


def test_every_state_and_move_has_a_meaning() -> None:
    for words in (BatchStatus, JobStatus, SubmissionState, BatchMove, JobMove):
        assert set(meanings(words)) == set(words)
        assert all(meaning.endswith(".") for meaning in meanings(words).values())


def test_every_pair_of_the_product_has_a_cell() -> None:
    assert set(BATCH_MOVES) == set(product(BatchStatus, BatchMove))
    assert set(JOB_MOVES) == set(product(JobStatus, JobMove))
