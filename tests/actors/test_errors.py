"""The codes, which of them a retry can help, and the tree of errors."""

import pytest

from actors.errors import (
    BatchReleased,
    Conflict,
    ErrorCode,
    Failure,
    FieldError,
    InvalidRequest,
    NotFound,
    ServiceClosed,
    SettingsError,
    SoraBatchError,
    SoraError,
    StorageError,
)

NO_RETRY_HELPS = {
    "invalid_request", "permission", "moderation_blocked", "not_found", "conflict", "submission_unknown",
}  # fmt: skip
A_RETRY_CAN_HELP = {
    "authentication", "quota_exceeded", "budget_exceeded", "price_unknown", "rate_limited", "server_error", "network", "timeout", "batch_timeout",
    "download_failed", "generation_failed", "storage", "unavailable", "internal", "cancelled",
}  # fmt: skip


def test_every_code_of_the_contract_is_there_and_no_other():
    assert {code.value for code in ErrorCode} == NO_RETRY_HELPS | A_RETRY_CAN_HELP


@pytest.mark.parametrize("code", ErrorCode)
def test_a_code_tells_whether_a_retry_can_help(code):
    assert code.retryable == (code.value in A_RETRY_CAN_HELP)
    assert SoraBatchError("x", code=code).retryable == code.retryable


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InvalidRequest("x"), "invalid_request"),
        (SettingsError("x"), "invalid_request"),
        (NotFound("x"), "not_found"),
        (Conflict("x"), "conflict"),
        (StorageError("x"), "storage"),
        (BatchReleased("nature"), "unavailable"),
        (ServiceClosed(), "unavailable"),
        (SoraError(Failure(ErrorCode.NETWORK, "x")), "network"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_error_is_of_the_tree_and_has_a_code(error, code):
    assert isinstance(error, SoraBatchError)
    assert (error.code, str(error)) == (code, error.message)


def test_a_failure_is_recorded_as_a_document():
    failure = Failure(ErrorCode.RATE_LIMITED, "slow down", {"status": 429})
    expected = {"code": "rate_limited", "message": "slow down", "retryable": True, "detail": {"status": 429}}
    assert failure.document() == expected
    assert Failure(ErrorCode.CONFLICT, "x").document()["detail"] is None


def test_an_invalid_request_names_at_least_itself():
    assert InvalidRequest("x").errors == (FieldError("", "x", "", "invalid_request"),)


def test_a_released_batch_says_how_to_go_on():
    error = BatchReleased("nature")
    assert error.batch_id == "nature"
    assert "resume it with resume_batches()" in error.message


def test_what_the_server_said_travels_with_its_error():
    failure = Failure(ErrorCode.RATE_LIMITED, "slow down")
    error = SoraError(failure, status=429, retry_after=7.0)
    assert (error.failure, error.status, error.retry_after, error.retryable) == (failure, 429, 7.0, True)
