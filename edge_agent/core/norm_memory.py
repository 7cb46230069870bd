"""How a device stores the running mean of its rounds' norms: before the error feedback's state, in one value. Pure.

Both change in one transaction; of a task whose rule does not need it, nothing more is stored than before.
"""

import math
import struct

from fleet_protocol.sending_plan import SendingPlan

_NORM = struct.Struct("<d")


def joined(plan: SendingPlan, usual_norm: float, state: bytes) -> bytes:
    """What is stored of a round."""
    return _NORM.pack(usual_norm) + state if plan.rule == "changed" else state


def divided(plan: SendingPlan, stored: bytes) -> tuple[float, bytes]:
    """The norm, 0 where there is none, and the state."""
    if plan.rule != "changed" or len(stored) < _NORM.size:
        return 0.0, stored
    (usual_norm,) = _NORM.unpack_from(stored)
    return usual_norm if math.isfinite(usual_norm) and usual_norm >= 0 else 0.0, stored[_NORM.size :]
