"""What travels: a change to the weights."""

import msgspec

from fleet_protocol.kinds import Count, EncryptedPayload, Leaf, PayloadKind
from fleet_protocol.limits import MAX_UPDATE_BYTES


class Delta(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One device's change to the weights, learned from `samples`; `packed` is for `fleet_protocol.codec`."""

    samples: Count
    packed: bytes


DELTA = PayloadKind(203, Delta, Leaf.UP, MAX_UPDATE_BYTES, journalled=True)
ENCRYPTED_DELTA = PayloadKind(204, EncryptedPayload, Leaf.UP, MAX_UPDATE_BYTES, journalled=True, content=DELTA)
