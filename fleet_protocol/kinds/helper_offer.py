"""A helper offers to run blocks of models for devices."""

from typing import Annotated

import msgspec

from fleet_protocol.configuration import Name
from fleet_protocol.kinds.kind import Leaf, PayloadKind
from fleet_protocol.kinds.session_fields import BundleHash
from fleet_protocol.limits import MAX_CONTROL_BYTES, MAX_GENERATION, MAX_HELPER_SESSIONS, MAX_OFFERED_TASKS


class OfferedTask(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A task whose blocks the helper has, by the SHA-256 of its `task.json` (32 bytes), in this generation."""

    task: Name
    bundle: BundleHash
    generation: Annotated[int, msgspec.Meta(ge=0, le=MAX_GENERATION)] = 0


class HelperOffer(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Replaces the offer before; comes again at intervals as a sign of life. No `tasks`: the helper takes no new
    sessions. `capacity` is how many it serves at once.
    """

    tasks: Annotated[list[OfferedTask], msgspec.Meta(max_length=MAX_OFFERED_TASKS)]
    capacity: Annotated[int, msgspec.Meta(ge=0, le=MAX_HELPER_SESSIONS)]


HELPER_OFFER = PayloadKind(15, HelperOffer, Leaf.SESSION, max_bytes=MAX_CONTROL_BYTES)
