"""What the relay says of a session to one of its ends."""

from enum import StrEnum

import msgspec

from fleet_protocol.kinds.kind import Leaf, PayloadKind
from fleet_protocol.kinds.session_fields import Detail, ReasonText, RetrySeconds, SessionName
from fleet_protocol.limits import MAX_SESSION_CONTROL_BYTES


class News(StrEnum):
    """What became of a session."""

    REFUSED = "refused"
    MOVED = "moved"
    """Its helper is gone: the device opens another one at once."""
    ENDED = "ended"
    UNKNOWN = "unknown"
    """The relay does not have it. Who has resumes it."""
    RESUME = "resume"
    """The other end has resumed it: resume it too, or end it."""
    RESUMED = "resumed"


class SessionNotice(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What, why, and in how many seconds a device may try again."""

    session: SessionName
    news: News
    reason: ReasonText = ""
    detail: Detail = ""
    retry_seconds: RetrySeconds = 0


SESSION_NOTICE = PayloadKind(22, SessionNotice, Leaf.RELAYED, max_bytes=MAX_SESSION_CONTROL_BYTES)
