"""How running statistics travel: every one of them, as the upper half of a float32, behind the packed update.

They are no gradients: all matter however small they are beside others, and none is left for a later update.
"""

import numpy as np

from fleet_protocol.codec.sparse import FloatVector
from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.limits import MAX_STATISTIC_CHANGE

_BYTES = 2
_JUST_BELOW_HALF = np.uint32(0x7FFF)


def write_statistics(changes: FloatVector) -> bytes:
    """Changes (float32, finite), those beyond MAX_STATISTIC_CHANGE as that, rounded to the nearest, halves to the even
    one.
    """
    if not changes.size:
        return b""
    bits = np.clip(changes, -MAX_STATISTIC_CHANGE, MAX_STATISTIC_CHANGE).astype(np.float32).view(np.uint32)
    rounded = bits + _JUST_BELOW_HALF + (bits >> 16 & 1)
    return (rounded >> 16).astype("<u2").tobytes()


def without_statistics(packed: bytes, count: int) -> bytes:
    """The packed update in front of `count` statistics; empty where there is no room for them."""
    return packed[: max(0, len(packed) - _BYTES * count)]


def read_statistics(packed: bytes, count: int) -> FloatVector:
    """The changes of the `count` statistics behind a packed update.

    Raises:
        ProtocolError: `MALFORMED` where there are fewer, `NOT_FINITE`, `OUT_OF_BOUNDS`.
    """
    if len(packed) < _BYTES * count:
        raise ProtocolError(Reason.MALFORMED, f"{len(packed)} bytes, of which {count} running statistics take 2 each")
    upper = np.frombuffer(packed, "<u2", offset=len(packed) - _BYTES * count)
    changes: FloatVector = (upper.astype(np.uint32) << 16).view(np.float32)
    if not np.isfinite(changes).all():
        raise ProtocolError(Reason.NOT_FINITE, "a running statistic changes by NaN or infinity")
    largest = float(np.abs(changes).max(initial=0))
    if largest > MAX_STATISTIC_CHANGE:
        raise ProtocolError(
            Reason.OUT_OF_BOUNDS,
            f"a running statistic changes by {largest:.3g}; MAX_STATISTIC_CHANGE is {MAX_STATISTIC_CHANGE:g}:"
            " scale the inputs",
        )
    return changes
