"""A helper takes a device's session."""

from typing import Annotated

import msgspec

from fleet_protocol.kinds.kind import Leaf, PayloadKind
from fleet_protocol.kinds.session_fields import PublicKeyBytes, SessionName
from fleet_protocol.limits import DIGEST_BYTES, MAX_SESSION_CONTROL_BYTES


class SessionGrant(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """`opening` is the digest of the device's envelope, so that a grant belongs to one opening alone; `ephemeral` the
    helper's X25519 key of this session.
    """

    session: SessionName
    opening: Annotated[bytes, msgspec.Meta(min_length=DIGEST_BYTES, max_length=DIGEST_BYTES)]
    ephemeral: PublicKeyBytes


SESSION_GRANT = PayloadKind(17, SessionGrant, Leaf.SESSION, max_bytes=MAX_SESSION_CONTROL_BYTES)
