"""What a mask helper says to a request. It is made again from the same request, so nothing of it waits anywhere."""

from typing import Annotated

import msgspec

from fleet_protocol.configuration import Name
from fleet_protocol.kinds.kind import Leaf, PayloadKind
from fleet_protocol.kinds.mask_request import MaskStep
from fleet_protocol.kinds.masked_update import Signed
from fleet_protocol.limits import MAX_COHORT_DEVICES, MAX_MASK_REFUSAL_CHARACTERS, MAX_UPDATE_BYTES

SET_HASH_BYTES = 32


class MaskReply(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """To the request of this `step` for the set with this hash.

    `refusal` says why the helper does not do it, empty where it does. `unusable` are devices whose boxes don't open
    there, or that it does not know. `signed` is the one `SetSignature` or `HelperAnswer`, of the other two steps.
    """

    step: MaskStep
    set_hash: Annotated[bytes, msgspec.Meta(min_length=SET_HASH_BYTES, max_length=SET_HASH_BYTES)]
    refusal: Annotated[str, msgspec.Meta(max_length=MAX_MASK_REFUSAL_CHARACTERS)] = ""
    unusable: Annotated[tuple[Name, ...], msgspec.Meta(max_length=MAX_COHORT_DEVICES)] = ()
    signed: Annotated[tuple[Signed, ...], msgspec.Meta(max_length=1)] = ()


MASK_REPLY = PayloadKind(44, MaskReply, Leaf.UP, max_bytes=MAX_UPDATE_BYTES)
