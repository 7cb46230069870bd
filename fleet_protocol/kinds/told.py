"""What a device tells its neighbours of its model, where there is no coordinator (docs/gossip.md)."""

import msgspec

from fleet_protocol.kinds.kind import Leaf, PayloadKind
from fleet_protocol.kinds.payload import Count
from fleet_protocol.limits import MAX_UPDATE_BYTES


class Told(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What a device tells its neighbours: how its public copy has changed, or with `whole` the copy itself; `packed` is
    for `fleet_protocol.codec`. It is change number `number`, from 1 on, of a copy that began with the task's own
    weights; a device that has lost its state begins another `life` with them.
    """

    life: Count
    number: Count
    packed: bytes
    whole: bool = False


TOLD = PayloadKind(46, Told, Leaf.GOSSIP, max_bytes=MAX_UPDATE_BYTES)
