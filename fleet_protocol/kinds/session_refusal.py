"""A helper does not take a device's session."""

import msgspec

from fleet_protocol.kinds.kind import Leaf, PayloadKind
from fleet_protocol.kinds.session_fields import Detail, ReasonText, RetrySeconds, SessionName
from fleet_protocol.limits import MAX_SESSION_CONTROL_BYTES


class SessionRefusal(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Why, and in how many seconds it may be tried again."""

    session: SessionName
    reason: ReasonText
    detail: Detail
    retry_seconds: RetrySeconds


SESSION_REFUSAL = PayloadKind(18, SessionRefusal, Leaf.SESSION, max_bytes=MAX_SESSION_CONTROL_BYTES)
