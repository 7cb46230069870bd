"""A device enrols: it names its key."""

import msgspec

from fleet_protocol.kinds.kind import Leaf, PayloadKind
from fleet_protocol.limits import MAX_CONTROL_BYTES


class Enrolment(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A device's public key and what it runs, signed with that key, which proves possession."""

    public_key: bytes
    profile: str
    software: str
    tasks: list[str]


ENROLMENT = PayloadKind(1, Enrolment, Leaf.UP, max_bytes=MAX_CONTROL_BYTES)
