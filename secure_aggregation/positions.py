"""Which entries a cohort's devices send: the same for all, or their masks would not add up. Pure.

They may depend on what is public alone: the manifest's seed, and the server's momentum, which follows from versions
that everybody has. So positions tell nothing of any device.
"""

import hashlib

import numpy as np

from fleet_protocol.codec.selection import largest, random_indices
from fleet_protocol.codec.sparse import FloatVector, IndexVector
from fleet_protocol.errors import ProtocolError, Reason
from secure_aggregation.messages import CohortManifest


def momentum_hash(momentum: FloatVector) -> bytes:
    """What a manifest says of the server's momentum, float32[parameters]."""
    return hashlib.sha256(momentum.astype("<f4").tobytes()).digest()


def shared_positions(manifest: CohortManifest, momentum: FloatVector | None = None) -> IndexVector:
    """The cohort's positions, int64[entries], ascending; `momentum` only where the manifest's rule asks for it.

    Raises:
        ProtocolError: `WRONG_HASH`: another momentum than the manifest is about, or none.
    """
    if manifest.positions == "dense":
        return np.arange(manifest.parameters, dtype=np.int64)
    if manifest.positions == "random":
        return random_indices(manifest.positions_seed, manifest.entries, manifest.parameters)
    if momentum is None or momentum.size != manifest.parameters or momentum_hash(momentum) != manifest.momentum_hash:
        raise ProtocolError(
            Reason.WRONG_HASH,
            f"cohort {manifest.number} takes positions from a server momentum that is not here; fetch the version"
            f" {manifest.newest_version} that it belongs to",
        )
    return _half_random(manifest, momentum)


def _half_random(manifest: CohortManifest, momentum: FloatVector) -> IndexVector:
    """The largest half of the momentum, rounded down, and the rest drawn from all other positions."""
    top = largest(momentum, manifest.entries // 2) if manifest.entries > 1 else np.empty(0, np.int64)
    others = np.delete(np.arange(manifest.parameters, dtype=np.int64), top)
    drawn = others[random_indices(manifest.positions_seed, manifest.entries - top.size, others.size)]
    return np.sort(np.concatenate([top, drawn]))
