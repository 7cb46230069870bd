"""Asks devices that sleep to look at a task: it has begun another generation, or an operator wants a round."""

from typing import Annotated

import msgspec

from fleet_protocol.kinds.kind import Leaf, PayloadKind
from fleet_protocol.kinds.payload import Count
from fleet_protocol.limits import MAX_CONTROL_BYTES, MAX_GENERATION


class Invitation(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The task, which the header names, is at this `version` of this `generation`. `wants_round`: whoever has not
    trained from that version yet is invited to.
    """

    version: Count
    generation: Annotated[int, msgspec.Meta(ge=0, le=MAX_GENERATION)] = 0
    wants_round: bool = False


INVITATION = PayloadKind(12, Invitation, Leaf.INVITE, max_bytes=MAX_CONTROL_BYTES)
