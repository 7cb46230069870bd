"""The update codec: a float32 delta to a few hundred bytes, and hostile bytes to a checked sparse vector.

    select -> quantise -> pack indices -> zstd where it pays

Each stage is one module: `selection`, `quantisation`, `positions`, `container`; `update_codec` puts them together.
Running statistics travel behind an update (`running_statistics`), and of a task with a `split` it may hold the tensors
of some blocks alone (`held_blocks`).
`cluster_copies` says which tensors of a version a device's cluster has, `own_parameters` which never leave a device.
Weights take another way down: `grid` rounds them, `difference` packs one version as its difference from another.
`moments` says how a device's samples are distributed, `class_statistics` how its features are.
The one part of `fleet_protocol` that imports numpy, so a sleeping agent does not import it.
"""

from fleet_protocol.codec.class_statistics import ClassStatistics, decode_class_statistics
from fleet_protocol.codec.cluster_copies import ClusterView, read_model, with_copies
from fleet_protocol.codec.deviations import deviations, factor_places, gaussian_places, prior_of, read_distribution
from fleet_protocol.codec.difference import apply_difference, encode_difference
from fleet_protocol.codec.grid import Grid
from fleet_protocol.codec.held_blocks import HeldBlocks
from fleet_protocol.codec.moments import Moments, decode_moments, pooled
from fleet_protocol.codec.own_parameters import device_model, own_of, own_places, with_own, with_shared_only
from fleet_protocol.codec.quantisation import Quantisation
from fleet_protocol.codec.running_statistics import read_statistics, without_statistics, write_statistics
from fleet_protocol.codec.sparse import SparseUpdate
from fleet_protocol.codec.together import decode_together
from fleet_protocol.codec.update_codec import EncodedUpdate, decode_update, encode_update, inspect_update
from fleet_protocol.codec.weights import read_weights, write_weights

__all__ = [
    "ClassStatistics",
    "ClusterView",
    "EncodedUpdate",
    "Grid",
    "HeldBlocks",
    "Moments",
    "Quantisation",
    "SparseUpdate",
    "apply_difference",
    "decode_class_statistics",
    "decode_moments",
    "decode_together",
    "decode_update",
    "deviations",
    "device_model",
    "encode_difference",
    "encode_update",
    "factor_places",
    "gaussian_places",
    "inspect_update",
    "own_of",
    "own_places",
    "pooled",
    "prior_of",
    "read_distribution",
    "read_model",
    "read_statistics",
    "read_weights",
    "with_copies",
    "with_own",
    "with_shared_only",
    "without_statistics",
    "write_statistics",
    "write_weights",
]
