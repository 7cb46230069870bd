"""The two families of errors: invalid bytes from outside, and an invalid configuration."""

from enum import StrEnum


class Reason(StrEnum):
    """The closed list of reasons for which a message is refused. The value is what travels in a receipt."""

    TOO_LARGE = "too_large"
    MALFORMED = "malformed"
    UNKNOWN_KEY = "unknown_key"
    REVOKED_KEY = "revoked_key"
    WRONG_TOPIC = "wrong_topic"
    BAD_SIGNATURE = "bad_signature"
    SEQUENCE_REUSED = "sequence_reused"
    UNKNOWN_KIND = "unknown_kind"
    UNKNOWN_TASK = "unknown_task"
    UNKNOWN_VERSION = "unknown_version"
    OLD_GENERATION = "old_generation"
    TOO_STALE = "too_stale"
    INFLATES = "inflates"
    WRONG_SHAPE = "wrong_shape"
    INDEX_OUT_OF_RANGE = "index_out_of_range"
    NOT_FINITE = "not_finite"
    OUT_OF_BOUNDS = "out_of_bounds"
    WRONG_HASH = "wrong_hash"
    WRONG_RECIPIENT = "wrong_recipient"
    TASK_PAUSED = "task_paused"
    RATE_LIMITED = "rate_limited"
    BAD_INVITATION = "bad_invitation"
    WRONG_CLUSTER = "wrong_cluster"
    AWAITS_COHORT = "awaits_cohort"
    """No refusal: it is journalled, and whether it counts is settled with its cohort."""
    TOO_SOON = "too_soon"
    PRIVACY_SPENT = "privacy_spent"
    COHORT_CLOSED = "cohort_closed"
    VOID_COHORT = "void_cohort"


class ProtocolError(Exception):
    """Bytes from outside that break the contract. Carries the machine-readable reason beside the sentence."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason.value}: {detail}")
        self.reason = reason
        self.detail = detail


class ConfigurationError(Exception):
    """A file or option that the operator can correct. The message names the place, the value and the remedy."""


def why_unreadable(error: OSError, if_missing: str) -> str:
    """Why a file can't be read and what helps; `if_missing` is the remedy where there is none."""
    match error:
        case FileNotFoundError():
            remedy = if_missing
        case PermissionError():
            remedy = "let the account that runs this read the file and enter its folders (chown, chmod)"
        case IsADirectoryError():
            remedy = "name a file"
        case NotADirectoryError():
            remedy = "a part of its path is a file; correct the path"
        case _:
            remedy = "check the disk"
    return f"{error.strerror or error}; {remedy}"
