"""What the coordinator asks a mask helper about a set of masked updates."""

from typing import Annotated, Literal

import msgspec

from fleet_protocol.kinds.kind import Leaf, PayloadKind
from fleet_protocol.kinds.masked_update import Signed
from fleet_protocol.limits import MAX_COHORT_DEVICES, MAX_MASK_HELPERS, MAX_MASK_REQUEST_BYTES

MaskStep = Literal["unusable", "sign", "answer"]
"""Which boxes don't open; sign the set; tell the sums of its masks."""


class SumRequest(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What a helper is asked about: the coordinator's manifest and set, and each member's seeds, in the set's order."""

    manifest: Signed
    cohort_set: Signed
    seeds: Annotated[tuple[Signed, ...], msgspec.Meta(max_length=MAX_COHORT_DEVICES)]


class MaskRequest(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One step of the way to a sum. `signatures`, of helpers for this set, are there for `answer` alone. So is
    `ciphertext`, the weighted sum of the members' encrypted updates, and for the key holder alone.
    """

    step: MaskStep
    request: SumRequest
    signatures: Annotated[tuple[Signed, ...], msgspec.Meta(max_length=MAX_MASK_HELPERS)] = ()
    ciphertext: Annotated[bytes, msgspec.Meta(max_length=MAX_MASK_REQUEST_BYTES)] = b""


MASK_REQUEST = PayloadKind(43, MaskRequest, Leaf.DOWN, max_bytes=MAX_MASK_REQUEST_BYTES)
"""Goes to mask helpers alone: a device that trains reads nothing so large on its topic."""
