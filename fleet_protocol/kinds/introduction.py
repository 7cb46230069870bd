"""The relay names one end of a session to the other."""

from typing import Annotated

import msgspec

from fleet_protocol.configuration import Name
from fleet_protocol.kinds.kind import Leaf, PayloadKind
from fleet_protocol.kinds.session_fields import PublicKeyBytes, SessionName
from fleet_protocol.limits import MAX_CONTROL_BYTES, MAX_SESSION_CONTROL_BYTES


class Introduction(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """To a helper, with a device's opening; to that device, with the helper's grant. `peer` is the other end's name,
    `public_key` the Ed25519 key with which it has signed `message`, the envelope as it came. `shard` is the one under
    which it was signed; empty where that is the reader's.
    """

    session: SessionName
    peer: Name
    public_key: PublicKeyBytes
    message: Annotated[bytes, msgspec.Meta(max_length=MAX_SESSION_CONTROL_BYTES)]
    shard: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9_-]{0,48}\Z")] = ""


INTRODUCTION = PayloadKind(21, Introduction, Leaf.RELAYED, max_bytes=MAX_CONTROL_BYTES)
