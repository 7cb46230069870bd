"""A device or its helper ends a session."""

import msgspec

from fleet_protocol.kinds.kind import Leaf, PayloadKind
from fleet_protocol.kinds.session_fields import Detail, ReasonText, SessionName
from fleet_protocol.limits import MAX_SESSION_CONTROL_BYTES


class SessionEnding(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """From the end that leaves; or from one that is asked for a session which it does not have."""

    session: SessionName
    reason: ReasonText
    detail: Detail


SESSION_ENDING = PayloadKind(19, SessionEnding, Leaf.SESSION, max_bytes=MAX_SESSION_CONTROL_BYTES)
