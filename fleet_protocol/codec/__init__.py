"""The update codec: a float32 delta to a few hundred bytes, and hostile bytes to a checked sparse vector.

    select -> quantise -> pack indices -> zstd where it pays

Each stage is one module: `selection`, `quantisation`, `positions`, `container`; `update_codec` puts them together.
The one part of `fleet_protocol` that imports numpy, so a sleeping agent does not import it.
"""

from fleet_protocol.codec.quantisation import Quantisation
from fleet_protocol.codec.sparse import SparseUpdate
from fleet_protocol.codec.update_codec import EncodedUpdate, decode_update, encode_update, inspect_update
from fleet_protocol.codec.weights import read_weights, write_weights

__all__ = [
    "EncodedUpdate",
    "Quantisation",
    "SparseUpdate",
    "decode_update",
    "encode_update",
    "inspect_update",
    "read_weights",
    "write_weights",
]
