"""Flow control: an end sends no more than the other has said that it takes. Pure.

Credit counts bytes from the session's beginning, so a lost frame, and lost credit, are made good by the next: what has
not come by the time that a later frame comes is lost, and its sender may send as much again.
"""

from dataclasses import dataclass
from typing import Final

from fleet_protocol.limits import SESSION_CREDIT_BYTES

TOLD_EACH_BYTES: Final = SESSION_CREDIT_BYTES // 4
"""Credit is told again when so much more may be sent."""


@dataclass(slots=True)
class SendingCredit:
    """Of an end that sends: `sent` bytes, and up to `limit`."""

    sent: int = 0
    limit: int = SESSION_CREDIT_BYTES

    def covers(self, size: int) -> bool:
        """Whether so many bytes may be sent now."""
        return self.sent + size <= self.limit

    def spend(self, size: int) -> int:
        """Send them; returns the offset at which they stand."""
        offset = self.sent
        self.sent += size
        return offset

    def told(self, limit: int) -> None:
        """Take in credit; an older one changes nothing."""
        self.limit = max(self.limit, limit)


@dataclass(slots=True)
class ReceivingCredit:
    """Of the end that receives: the other has sent `seen` bytes, as far as is known, and was `told` its limit."""

    seen: int = 0
    told: int = SESSION_CREDIT_BYTES

    def note(self, end: int) -> None:
        """Note that something came which ends at this offset; one beyond the limit counts up to it."""
        self.seen = max(self.seen, min(end, self.told))

    @property
    def is_due(self) -> bool:
        """Whether the other end should hear of more credit."""
        return self.seen + SESSION_CREDIT_BYTES - self.told >= TOLD_EACH_BYTES

    def tell(self) -> int:
        """The limit that the other end is told now."""
        self.told = self.seen + SESSION_CREDIT_BYTES
        return self.told
