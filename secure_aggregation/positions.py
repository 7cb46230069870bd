"""Which entries a cohort's devices send: the same for all, or their masks would not add up. Pure.

They follow from the manifest alone, whatever version a device has, and are fixed before anybody sends: from its seed,
and from the positions of the server's momentum that it names. So positions tell nothing of any device.
"""

import numpy as np

from fleet_protocol.codec.byte_gaps import read_numbers, write_numbers
from fleet_protocol.codec.positions import gaps_of
from fleet_protocol.codec.selection import largest, random_indices
from fleet_protocol.codec.sparse import FloatVector, IndexVector
from fleet_protocol.errors import ProtocolError, Reason
from secure_aggregation.messages import CohortManifest

_NONE = np.empty(0, np.int64)
_LAST_OF_NUMBER = 0x80
"""The last byte of a LEB128 number is below it."""


def top_positions(momentum: FloatVector, entries: int) -> bytes:
    """What a manifest of so many entries says of the server's momentum, float32[parameters]: where it is largest, at
    most half of the entries and never where it is 0; the gaps between them as LEB128.
    """
    most = entries // 2
    top = largest(momentum, most) if most else _NONE
    return write_numbers(gaps_of(top[momentum[top] != 0]))


def top_indices(manifest: CohortManifest) -> IndexVector:
    """The positions that a manifest names, int64, ascending.

    Raises:
        ProtocolError: `MALFORMED`: they end early. `INDEX_OUT_OF_RANGE`: there is no such parameter. `WRONG_SHAPE`:
            more than half of the entries.
    """
    data = memoryview(manifest.top_positions)
    count = int((np.frombuffer(data, np.uint8) < _LAST_OF_NUMBER).sum())
    gaps, used = read_numbers(data, count)
    indices = np.cumsum(gaps + 1) - 1
    about = f"manifest of cohort {manifest.number}"
    if used != len(data):
        raise ProtocolError(Reason.MALFORMED, f"{about}: its top positions end within a number")
    if count > manifest.entries // 2:
        raise ProtocolError(
            Reason.WRONG_SHAPE, f"{about}: {count} top positions, at most half of its {manifest.entries} entries may be"
        )
    if count and int(indices[-1]) >= manifest.parameters:
        raise ProtocolError(
            Reason.INDEX_OUT_OF_RANGE,
            f"{about}: top position {int(indices[-1])} among {manifest.parameters} parameters",
        )
    return indices


def shared_positions(manifest: CohortManifest) -> IndexVector:
    """The cohort's positions, int64[entries], ascending: all, or those that the manifest names and the rest drawn from
    all others.

    Raises:
        ProtocolError: as `top_indices`.
    """
    if manifest.positions == "dense":
        return np.arange(manifest.parameters, dtype=np.int64)
    top = top_indices(manifest)
    others = np.delete(np.arange(manifest.parameters, dtype=np.int64), top)
    drawn = others[random_indices(manifest.positions_seed, manifest.entries - top.size, others.size)]
    return np.sort(np.concatenate([top, drawn]))
