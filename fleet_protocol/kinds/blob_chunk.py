"""A piece of a file, or of packed weights."""

import msgspec

from fleet_protocol.kinds.kind import Leaf, PayloadKind
from fleet_protocol.limits import MAX_SIGNED_CHUNK_BYTES


class BlobChunk(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One chunk of a blob, or of packed weights; `total_bytes` is the size of the whole."""

    total_bytes: int
    data: bytes


BLOB_CHUNK = PayloadKind(5, BlobChunk, Leaf.CHUNK, max_bytes=MAX_SIGNED_CHUNK_BYTES)
