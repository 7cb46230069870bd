"""Which key a coordinator signs with from now on, signed with the one that it follows."""

from typing import Annotated

import msgspec

from fleet_protocol.keys import KEY_BYTES
from fleet_protocol.kinds.kind import Leaf, PayloadKind
from fleet_protocol.limits import MAX_CONTROL_BYTES


class KeySuccession(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The public key `successor` takes the place of the one that signs this message, which is retained."""

    successor: Annotated[bytes, msgspec.Meta(min_length=KEY_BYTES, max_length=KEY_BYTES)]


KEY_SUCCESSION = PayloadKind(13, KeySuccession, Leaf.KEY, max_bytes=MAX_CONTROL_BYTES)
