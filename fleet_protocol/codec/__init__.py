"""The update codec: a float32 delta to a few hundred bytes, and hostile bytes to a checked sparse vector.

    select -> quantise -> pack indices -> zstd where it pays

The one part of `fleet_protocol` that imports numpy, so a sleeping agent does not import it.
"""

from fleet_protocol.codec.sparse import SparseUpdate
from fleet_protocol.codec.update_codec import EncodedUpdate, decode_update, encode_update
from fleet_protocol.codec.weights import read_weights, write_weights

__all__ = ["EncodedUpdate", "SparseUpdate", "decode_update", "encode_update", "read_weights", "write_weights"]
