"""A device enrols: it names its key."""

import msgspec

from fleet_protocol.kinds.kind import Leaf, PayloadKind
from fleet_protocol.limits import MAX_CONTROL_BYTES


class Enrolment(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A device's public key and what it runs, signed with that key, which proves possession.

    A device that was invited names the id of the invitation's key, and proves that it has the invitation
    (`fleet_protocol.device_invitation`).
    """

    public_key: bytes
    profile: str
    software: str
    tasks: list[str]
    invitation: bytes = b""
    proof: bytes = b""


ENROLMENT = PayloadKind(1, Enrolment, Leaf.UP, max_bytes=MAX_CONTROL_BYTES)
