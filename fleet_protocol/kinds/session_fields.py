"""What the messages of sessions have in common (docs/wire-format.md, "Sessions"). Pure."""

from enum import StrEnum
from typing import Annotated

import msgspec

from fleet_protocol.limits import (
    MAX_PROBLEM_CHARACTERS,
    MAX_REASON_CHARACTERS,
    MAX_RETRY_SECONDS,
    SESSION_BYTES,
)

SessionName = Annotated[bytes, msgspec.Meta(min_length=SESSION_BYTES, max_length=SESSION_BYTES)]
"""16 random bytes, drawn by the device that opens the session."""
NO_SESSION = bytes(SESSION_BYTES)
"""Stands where a message is about none."""
PublicKeyBytes = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
"""Ed25519, of who signs, or X25519, made for one session."""
BundleHash = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
"""SHA-256 of `task.json`."""
ReasonText = Annotated[str, msgspec.Meta(max_length=MAX_REASON_CHARACTERS)]
"""One of `SessionReason`, or one that a newer release has."""
Detail = Annotated[str, msgspec.Meta(max_length=MAX_PROBLEM_CHARACTERS)]
"""The same for people."""
RetrySeconds = Annotated[int, msgspec.Meta(ge=0, le=MAX_RETRY_SECONDS)]
"""After which it makes sense to try again."""


class SessionReason(StrEnum):
    """Why there is no session, or no longer."""

    NO_HELPER = "no_helper"
    HELPER_BUSY = "helper_busy"
    HELPER_GONE = "helper_gone"
    HELPER_FAILED = "helper_failed"
    NOT_APPROVED = "not_approved"
    UNTRUSTED_HELPER = "untrusted_helper"
    TOO_MANY_SESSIONS = "too_many_sessions"
    RATE_LIMITED = "rate_limited"
    UNKNOWN_TASK = "unknown_task"
    TASK_PAUSED = "task_paused"
    NO_CUTS = "no_cuts"
    UNKNOWN_CUT = "unknown_cut"
    UNKNOWN_VERSION = "unknown_version"
    OLD_GENERATION = "old_generation"
    WRONG_BUNDLE = "wrong_bundle"
    MALFORMED = "malformed"
    UNKNOWN_SESSION = "unknown_session"
    REPLACED = "replaced"
    ANSWER_LOST = "answer_lost"
    UNANSWERED = "unanswered"
    SILENT = "silent"
    LEFT = "left"
