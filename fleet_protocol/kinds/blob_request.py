"""A device requests a file."""

import msgspec

from fleet_protocol.kinds.kind import Leaf, PayloadKind
from fleet_protocol.limits import MAX_CONTROL_BYTES


class BlobRequest(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Asks for the chunks of one blob; an empty list means all of them."""

    blob: bytes
    chunks: list[int]


BLOB_REQUEST = PayloadKind(4, BlobRequest, Leaf.UP, max_bytes=MAX_CONTROL_BYTES)
