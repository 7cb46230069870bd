"""A device requests a version of the weights, packed."""

import msgspec

from fleet_protocol.kinds.kind import Leaf, PayloadKind
from fleet_protocol.kinds.payload import Count
from fleet_protocol.limits import MAX_CONTROL_BYTES


class WeightsRequest(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Asks for chunks of a version of the header's task, packed as its difference from version `base`, if any.

    An empty list means all of them.
    """

    version: Count
    base: Count | None
    chunks: list[int]


WEIGHTS_REQUEST = PayloadKind(8, WeightsRequest, Leaf.UP, max_bytes=MAX_CONTROL_BYTES)
