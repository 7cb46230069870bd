"""Whether a device is connected: a retained message, and the device's last will."""

from enum import StrEnum

import msgspec

from fleet_protocol.kinds.kind import Leaf, PayloadKind
from fleet_protocol.limits import MAX_CONTROL_BYTES


class PresenceState(StrEnum):
    """What a retained presence says."""

    ONLINE = "online"
    OFFLINE = "offline"


class Presence(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Retained. The last will carries the boot number of its connection, so a late will cannot hide a newer boot."""

    state: PresenceState
    boot: int


PRESENCE = PayloadKind(2, Presence, Leaf.STATE, max_bytes=MAX_CONTROL_BYTES)
