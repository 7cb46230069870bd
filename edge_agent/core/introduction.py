"""Introduction: when a device enrols again, and what a receipt for its enrolment means. Pure."""

from enum import Enum

from fleet_protocol.kinds import Outcome, Receipt

FIRST_ANSWER_SECONDS = 2.0
LAST_ANSWER_SECONDS = 60.0
"""How long to wait for an answer, or for an operator's approval, before asking again; doubles from first to last."""


class Answer(Enum):
    """What a receipt says of this device's enrolment."""

    NOT_OURS = "not ours"
    ACCEPTED = "accepted"
    REFUSED = "refused"


class Introduction:
    """Repeats enrolment until accepted."""

    __slots__ = ("_asked", "_patience")

    def __init__(self) -> None:
        self._asked: set[bytes] = set()
        self._patience = FIRST_ANSWER_SECONDS

    def start(self) -> None:
        """A new connection, or the device was accepted: the next wait is a short one."""
        self._patience = FIRST_ANSWER_SECONDS

    def asked(self, digest: bytes) -> float:
        """An enrolment whose envelope has this digest goes out; seconds to wait for its receipt before the next one."""
        self._asked.add(digest)
        patience = self._patience
        self._patience = min(2 * patience, LAST_ANSWER_SECONDS)
        return patience

    def receive(self, receipt: Receipt) -> Answer:
        """What a verified receipt means."""
        if receipt.digest not in self._asked:
            return Answer.NOT_OURS
        if receipt.outcome is not Outcome.ACCEPTED:
            return Answer.REFUSED
        self._asked.clear()
        return Answer.ACCEPTED
