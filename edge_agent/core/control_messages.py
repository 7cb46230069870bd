"""The control messages that this device has sent lately, and which of them have their receipt. Pure."""

from collections import deque

CONTROL_MESSAGES_REMEMBERED = 64
"""Enrolments, requests and presences whose receipts this device recognises as its own."""


class ControlMessages:
    """Messages by the digests of their envelopes. Each is answered once: an old receipt may be replayed on and on."""

    __slots__ = ("_answered", "_sent")

    def __init__(self) -> None:
        self._sent: deque[bytes] = deque(maxlen=CONTROL_MESSAGES_REMEMBERED)
        self._answered: deque[bytes] = deque(maxlen=CONTROL_MESSAGES_REMEMBERED)

    def sent(self, name: bytes) -> None:
        """A new one was signed."""
        self._sent.append(name)

    def __contains__(self, name: bytes) -> bool:
        return name in self._sent

    def is_newest(self, name: bytes) -> bool:
        """Whether nothing was sent after it."""
        return bool(self._sent) and name == self._sent[-1]

    def answered(self, name: bytes) -> bool:
        """A receipt has come; whether it is the first one for one of these messages."""
        is_first = name in self._sent and name not in self._answered
        if is_first:
            self._answered.append(name)
        return is_first
