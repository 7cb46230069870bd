"""How a device's samples are distributed, sent once while its task awaits the fleet's scale."""

import msgspec

from fleet_protocol.kinds.encrypted_update import EncryptedPayload
from fleet_protocol.kinds.kind import Leaf, PayloadKind
from fleet_protocol.limits import MAX_STATISTICS_BYTES


class Statistics(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """`moments` are of `samples` samples, as `fleet_protocol.codec.moments` writes them: of each column whose scale
    the task awaits, inputs before targets.
    """

    samples: int
    moments: bytes


STATISTICS = PayloadKind(10, Statistics, Leaf.UP, MAX_STATISTICS_BYTES, journalled=True)
ENCRYPTED_STATISTICS = PayloadKind(
    11, EncryptedPayload, Leaf.UP, MAX_STATISTICS_BYTES, journalled=True, content=STATISTICS
)
