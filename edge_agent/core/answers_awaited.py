"""Whether anybody answers this device, and whether its receipts are its own. Pure."""

UNANSWERED_THAT_SHOW = 4
"""So many messages in a row without a receipt are no lost packet: 14 seconds while enrolling, 70 for an update."""

FOREIGN_THAT_SHOW = 3
"""Receipts for different messages that this device has not sent. Fewer may be for what it sent before a restart."""


class AnswersAwaited:
    """Counts messages that a coordinator answers, and receipts for messages of somebody else."""

    __slots__ = ("_foreign", "_unanswered")

    def __init__(self) -> None:
        self._unanswered = 0
        self._foreign: set[bytes] = set()

    def sent(self) -> bool:
        """A message was sent; whether it is the one with which the silence shows."""
        self._unanswered += 1
        return self._unanswered == UNANSWERED_THAT_SHOW

    def answered(self) -> None:
        """A receipt for a message of this device has come."""
        self._unanswered = 0

    def foreign(self, digest: bytes) -> bool:
        """A receipt for another message has come, which `digest` names; whether there are too many of them now."""
        self._foreign.add(digest)
        if len(self._foreign) < FOREIGN_THAT_SHOW:
            return False
        self._foreign.clear()
        return True
