"""The model to use: the mean of the last versions. Pure.

A version depends on the few devices in its buffer, so versions vary; their mean varies less (Polyak & Juditsky 1992).
Devices still train from the newest version: the mean lags behind it.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from fleet_protocol.codec import read_weights, write_weights
from fleet_protocol.parameter import Parameter

FEWEST_USUAL = 10
"""Versions, where the task does not say how many."""

USUAL_SHARE = 0.25
"""Of all versions: the more there are, the less the last ones differ but by whose updates they hold."""

MOST_USUAL = 64
"""Versions: so many are read for an export."""


def most_averaged(count: int | None) -> int:
    """The most versions that the model to use is ever the mean of; `count` as in `averaged_numbers`."""
    return MOST_USUAL if count is None else count


def averaged_numbers(candidates: Sequence[int], newest: int, count: int | None) -> Sequence[int]:
    """The versions that the model to use is the mean of: the first `count` of `candidates`, the newest first.

    None: ten of them, or a quarter where that is more, up to 64. Never more than the newer half: the first versions are
    far from the last ones, and their mean is worse. The newest alone where it is no candidate.
    """
    if candidates[:1] != [newest]:
        return [newest]
    if count is None:
        count = min(max(FEWEST_USUAL, int(USUAL_SHARE * len(candidates))), MOST_USUAL)
    return candidates[: max(1, min(count, len(candidates) // 2))]


def averaged_weights(versions: Iterable[bytes], parameters: Sequence[Parameter]) -> bytes:
    """The mean of some versions, oldest first, as a safetensors file like theirs.

    The same versions give the same bytes: sums run in float64, in the given order. A single one is returned unchanged.

    Raises:
        ProtocolError: one of them doesn't fit `parameters`.
        ValueError: there is none.
    """
    total = np.zeros(sum(parameter.size for parameter in parameters))
    weights, count = b"", 0
    for weights in versions:
        total += read_weights(weights, parameters)
        count += 1
    if not count:
        raise ValueError("there is no version to average")
    return weights if count == 1 else write_weights((total / count).astype(np.float32), parameters)


class RecentVersions:
    """The versions of a task: the last ones in memory, and the model to use of them; `count` as in `averaged_numbers`.

    The first one added is the bundle's own, which is untrained.
    """

    def __init__(self, count: int | None) -> None:
        self._count = count
        self._numbers: list[int] = []
        self._weights: dict[int, bytes] = {}

    def add(self, number: int, weights: bytes) -> None:
        """The next version, as a safetensors file."""
        self._numbers.append(number)
        self._weights[number] = weights
        self._weights.pop(number - most_averaged(self._count), None)

    def drop_after(self, number: int) -> None:
        """Forget the versions after one that is restored."""
        self._numbers = [kept for kept in self._numbers if kept <= number]
        self._weights = {kept: weights for kept, weights in self._weights.items() if kept <= number}

    @property
    def averaged(self) -> Sequence[int]:
        """The versions that the model to use is the mean of, the newest first; none before the first one."""
        if not self._numbers:
            return []
        newest_first = self._numbers[:0:-1]
        return averaged_numbers(newest_first, self._numbers[-1], self._count)

    def model(self, parameters: Sequence[Parameter]) -> bytes:
        """The model to use, as a safetensors file.

        Raises:
            ValueError: no version was added.
        """
        numbers = [number for number in reversed(self.averaged) if number in self._weights]
        return averaged_weights([self._weights[number] for number in numbers], parameters)
