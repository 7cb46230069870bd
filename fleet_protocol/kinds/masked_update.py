"""One device's change to the weights behind masks: nobody can read it alone (docs/secure-aggregation.md)."""

from typing import Annotated

import msgspec

from fleet_protocol.keys import SIGNATURE_BYTES
from fleet_protocol.kinds.encrypted_update import EncryptedPayload
from fleet_protocol.kinds.kind import Leaf, PayloadKind
from fleet_protocol.limits import MAX_UPDATE_BYTES

Signature = Annotated[bytes, msgspec.Meta(min_length=SIGNATURE_BYTES, max_length=SIGNATURE_BYTES)]


class Signed(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The bytes of a message of `secure_aggregation.messages`, and a signature over them, which third parties check."""

    content: bytes
    signature: Signature


class MaskedUpdate(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The one message of a device to a cohort: its signed `SealedSeeds`, and as `values` the masked entries, packed; or
    their ciphertext, where the cohort has a key holder.
    """

    seeds: Signed
    values: bytes


MASKED_UPDATE = PayloadKind(41, MaskedUpdate, Leaf.UP, max_bytes=MAX_UPDATE_BYTES, journalled=True)
ENCRYPTED_MASKED_UPDATE = PayloadKind(
    42, EncryptedPayload, Leaf.UP, max_bytes=MAX_UPDATE_BYTES, journalled=True, content=MASKED_UPDATE
)
