"""Why a reading is refused: one reason, which it is counted under, and words that say what to do. Pure."""

from typing import Literal

Reason = Literal[
    "duplicate",
    "field_missing",
    "label_without_sample",
    "late",
    "not_a_number",
    "not_a_sample",
    "not_finite",
    "not_json",
    "not_predicted",
    "not_stored",
    "out_of_range",
    "outside_schema",
    "retained",
    "task_unknown",
    "time_backwards",
    "too_long",
    "too_many",
    "too_soon",
    "unknown_value",
    "unreadable_file",
    "window_not_full",
    "wrong_time",
    "wrong_unit",
]
"""Each has its row in docs/sources.md."""

IS_DISK_FULL = "is the disk full?"
"""Ends the words of what could not be stored: it can come again."""

MAX_SHOWN_CHARACTERS = 40
"""Of a value in a refusal."""


class ReadingRefusedError(Exception):
    """A reading is no sample; `reason` is what it is counted under, the words say what to do."""

    def __init__(self, reason: Reason, words: str) -> None:
        super().__init__(words)
        self.reason: Reason = reason


def shown(value: object) -> str:
    """A value as a refusal quotes it."""
    try:
        return repr(value)[:MAX_SHOWN_CHARACTERS]
    except RecursionError:  # JSON may be as deep as the stack was where it was decoded
        return "lists or objects too deep to show"
