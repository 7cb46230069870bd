"""An update that only its coordinator can read (`fleet_protocol.encryption`)."""

import msgspec

from fleet_protocol.kinds.kind import Leaf, PayloadKind
from fleet_protocol.kinds.update import UPDATE
from fleet_protocol.limits import MAX_UPDATE_BYTES


class EncryptedPayload(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """`recipient` is the key id of the coordinator that can decrypt `box`, a payload of another kind."""

    recipient: bytes
    box: bytes


ENCRYPTED_UPDATE = PayloadKind(
    9, EncryptedPayload, Leaf.UP, max_bytes=MAX_UPDATE_BYTES, journalled=True, content=UPDATE
)
