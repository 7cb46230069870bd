"""What a device's features say of each class: the one message from which the coordinator solves a head."""

import msgspec

from fleet_protocol.kinds.encrypted_update import EncryptedPayload
from fleet_protocol.kinds.kind import Leaf, PayloadKind
from fleet_protocol.limits import MAX_UPDATE_BYTES


class FeatureStatistics(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """`packed` are statistics of all samples that the device has, as `fleet_protocol.codec.class_statistics` writes
    them. They take the place of those that it sent before.
    """

    packed: bytes


FEATURE_STATISTICS = PayloadKind(32, FeatureStatistics, Leaf.UP, MAX_UPDATE_BYTES, journalled=True)
ENCRYPTED_FEATURE_STATISTICS = PayloadKind(
    33, EncryptedPayload, Leaf.UP, MAX_UPDATE_BYTES, journalled=True, content=FEATURE_STATISTICS
)
