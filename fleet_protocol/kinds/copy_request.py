"""A device asks a neighbour for its whole model, where there is no coordinator (docs/gossip.md)."""

import msgspec

from fleet_protocol.configuration import Name
from fleet_protocol.kinds.kind import Leaf, PayloadKind
from fleet_protocol.kinds.payload import Count
from fleet_protocol.limits import MAX_CONTROL_BYTES


class CopyRequest(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Asks the neighbour `asked` for its public copy, as a whole `Told`. The asker has the one behind change `number`
    of `life`; both are 0 where it has none.
    """

    asked: Name
    life: Count = 0
    number: Count = 0


COPY_REQUEST = PayloadKind(47, CopyRequest, Leaf.GOSSIP, max_bytes=MAX_CONTROL_BYTES)
