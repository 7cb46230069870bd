"""What a masked update held, as the device keeps it until its cohort is settled. Pure."""

import numpy as np

from fleet_protocol.codec import SparseUpdate
from fleet_protocol.errors import ProtocolError, Reason


def plain_update(plain: bytes, parameters: int) -> SparseUpdate:
    """What a masked update held, as `masked_result` gave it.

    Raises:
        ProtocolError: `WRONG_SHAPE`: of another number of parameters, or damaged.
    """
    if len(plain) != parameters * np.dtype(np.float32).itemsize:
        raise ProtocolError(Reason.WRONG_SHAPE, f"{len(plain)} bytes of an update of {parameters} parameters")
    values = np.frombuffer(plain, np.float32)
    indices = np.flatnonzero(values)
    return SparseUpdate(indices, values[indices])
