"""An end of a session still has it, and wants the relay to carry it again."""

from typing import Literal

import msgspec

from fleet_protocol.configuration import Name
from fleet_protocol.kinds.kind import Leaf, PayloadKind
from fleet_protocol.kinds.session_fields import SessionName
from fleet_protocol.limits import MAX_SESSION_CONTROL_BYTES


class SessionResumption(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """After the relay or the connection was lost. The sender is the session's `role`, `peer` its other end; a relay
    that has forgotten the session carries it once both have named each other.
    """

    session: SessionName
    role: Literal["device", "helper"]
    peer: Name


SESSION_RESUMPTION = PayloadKind(20, SessionResumption, Leaf.SESSION, max_bytes=MAX_SESSION_CONTROL_BYTES)
