"""A device's answer to one round of a query about its samples, or why it gives none."""

from enum import StrEnum
from typing import Annotated

import msgspec

from fleet_protocol.kinds.encrypted_update import EncryptedPayload
from fleet_protocol.kinds.kind import Leaf, PayloadKind
from fleet_protocol.kinds.queries import QueryNumber, Round
from fleet_protocol.limits import MAX_ANSWER_NUMBERS, MAX_CONTROL_BYTES, MAX_WORD_CHARACTERS


class AnswerOutcome(StrEnum):
    """Whether a device answers; else why not, which is counted."""

    ANSWERED = "answered"
    NOT_ALLOWED = "not_allowed"
    """Its owner lets nobody ask about one of the fields."""
    NOT_PRIVATE_ENOUGH = "not_private_enough"
    """The query costs more epsilon than its owner allows for one, or takes exact answers, which the owner doesn't."""
    TOO_FEW_DEVICES = "too_few_devices"
    """Its owner wants more devices in what is shown."""
    BUDGET_SPENT = "budget_spent"
    """What is left of its owner's epsilon does not pay for it."""
    TOO_OFTEN = "too_often"
    """It has answered as many queries today as its owner allows."""
    CHANGED = "changed"
    """The round asks something else than an earlier one of this query did, or about another task."""
    UNKNOWN_FIELD = "unknown_field"
    """The task has no such field."""
    NOT_UNDERSTOOD = "not_understood"
    """Its release does not know the way of asking."""


class AnalyticsReport(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """`numbers` and `word` are as the query's way of asking has them (`fleet_protocol.analytics`)."""

    query: QueryNumber
    round: Round
    outcome: AnswerOutcome
    numbers: Annotated[tuple[float, ...], msgspec.Meta(max_length=MAX_ANSWER_NUMBERS)] = ()
    word: Annotated[str, msgspec.Meta(max_length=MAX_WORD_CHARACTERS + 1)] = ""


ANALYTICS_REPORT = PayloadKind(34, AnalyticsReport, Leaf.UP, MAX_CONTROL_BYTES, journalled=True)
ENCRYPTED_ANALYTICS_REPORT = PayloadKind(
    35, EncryptedPayload, Leaf.UP, MAX_CONTROL_BYTES, journalled=True, content=ANALYTICS_REPORT
)
