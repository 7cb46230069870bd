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

    Never more than the newer half of them: the first versions are far from the last ones, and their mean is worse. The
    newest alone where it is no candidate.
    """
    return candidates[: max(1, min(count, len(candidates) // 2))] if candidates[:1] == [newest] else [newest]


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


class RecentVersions:
    """The last versions of a task, in memory, and the model to use of them.

    `count` is how many it is the mean of, once there are twice as many besides the bundle's own, which is untrained.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._weights: dict[int, bytes] = {}

    def add(self, number: int, weights: bytes) -> None:
        """The next version, as a safetensors file."""
        self._weights[number] = weights
        self._weights.pop(number - 2 * self._count, None)

    def drop_after(self, number: int) -> None:
        """Forget the versions after one that is restored."""
        self._weights = {kept: weights for kept, weights in self._weights.items() if kept <= number}

    def model(self, parameters: Sequence[Parameter]) -> bytes:
        """The model to use, as a safetensors file.

        Raises:
            ValueError: no version was added.
        """
        newest_first = sorted(self._weights, reverse=True)
        if not newest_first:
            raise ValueError("there is no version to average")
        numbers = averaged_numbers([number for number in newest_first if number], newest_first[0], self._count)
        return averaged_weights([self._weights[number] for number in reversed(numbers)], parameters)
