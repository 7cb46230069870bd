"""The model to use: the mean of the last versions. Pure.

A version depends on the few devices in its buffer, so versions vary; their mean varies less (Polyak & Juditsky 1992).
Devices still train from the newest version: the mean lags behind it.
"""

from collections.abc import Sequence

import numpy as np

from fleet_protocol.bundle import Parameter
from fleet_protocol.codec import read_weights, write_weights


def averaged_numbers(candidates: Sequence[int], newest: int, count: int) -> Sequence[int]:
    """The versions that the model to use is the mean of: the first `count` of `candidates`, the newest first.

    Where there are fewer, the newest alone: the first versions are far from the last ones, and their mean is worse.
    """
    return candidates[:count] if len(candidates) >= count and candidates[:1] == [newest] else [newest]


def averaged_weights(versions: Sequence[bytes], parameters: Sequence[Parameter]) -> bytes:
    """The mean of some versions, oldest first, as a safetensors file like theirs.

    The same versions give the same bytes: sums run in float64, in the given order. A single one is returned unchanged.

    Raises:
        ProtocolError: one of them doesn't fit `parameters`.
        ValueError: there is none.
    """
    if not versions:
        raise ValueError("there is no version to average")
    if len(versions) == 1:
        return versions[0]
    total = np.zeros(sum(parameter.size for parameter in parameters))
    for weights in versions:
        total += read_weights(weights, parameters)
    return write_weights((total / len(versions)).astype(np.float32), parameters)
