"""Enrolment: when a device enrols, and what receipts mean for its enrolment. Pure."""

from collections import deque
from enum import Enum

from fleet_protocol.errors import Reason
from fleet_protocol.kinds import Outcome, Receipt

FIRST_ANSWER_SECONDS = 2.0
LAST_ANSWER_SECONDS = 60.0
"""How long to wait for an answer, or for an operator's approval, before asking again; doubles from first to last."""

MAX_UNANSWERED = 100
"""Enrolments whose receipts are still known: a device may wait for its approval for months."""


class Answer(Enum):
    """What a receipt says about this device's enrolment."""

    NOT_OURS = "not ours"
    ACCEPTED = "accepted"
    REFUSED = "refused"


def must_enrol_again(receipt: Receipt) -> bool:
    """Whether a verified receipt, for any message, says that the coordinator does not know this device's key."""
    return receipt.outcome is Outcome.REJECTED and receipt.reason == Reason.UNKNOWN_KEY


class EnrolmentAttempts:
    """Repeats enrolment until accepted."""

    __slots__ = ("_sent", "_wait_seconds")

    def __init__(self) -> None:
        self._sent: deque[bytes] = deque(maxlen=MAX_UNANSWERED)
        self._wait_seconds = FIRST_ANSWER_SECONDS

    def start(self) -> None:
        """A new connection, or the device was accepted: the next wait is a short one."""
        self._wait_seconds = FIRST_ANSWER_SECONDS

    def sent(self, digest: bytes) -> float:
        """Note the digest of an enrolment's envelope; returns the seconds to wait for its receipt."""
        self._sent.append(digest)
        wait_seconds = self._wait_seconds
        self._wait_seconds = min(2 * wait_seconds, LAST_ANSWER_SECONDS)
        return wait_seconds

    def receive(self, receipt: Receipt) -> Answer:
        """What a verified receipt means."""
        if receipt.digest not in self._sent:
            return Answer.NOT_OURS
        if receipt.outcome is not Outcome.ACCEPTED:
            return Answer.REFUSED
        self._sent.clear()
        return Answer.ACCEPTED
