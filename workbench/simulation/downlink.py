"""How versions travel down: the weights that devices train from, and the bytes that they cost a device."""

from typing import Protocol

import numpy as np

from fleet_protocol.bundle import TaskDescription, UpdatePlan
from fleet_protocol.codec import encode_update
from fleet_protocol.codec.sparse import FloatVector
from fleet_protocol.limits import MAX_CHUNK_BYTES


class Downlink(Protocol):
    """One way to publish versions. `base` and `target` are what `published` gave, float32 [P]."""

    def published(self, weights: FloatVector) -> FloatVector:
        """What a device trains from once it has fetched the version with these weights."""
        ...

    def size(self, base: FloatVector | None, target: FloatVector) -> int:
        """Bytes that bring a device from `base`, or from nothing, to `target`, before they are sealed."""
        ...


class WholeWeights:
    """Every version as its safetensors file of `file_bytes`: what a device fetches today."""

    def __init__(self, file_bytes: int) -> None:
        self._file_bytes = file_bytes

    def published(self, weights: FloatVector) -> FloatVector:
        """See `Downlink`: the very weights."""
        return weights

    def size(self, base: FloatVector | None, target: FloatVector) -> int:
        """See `Downlink`."""
        return 0 if base is not None and np.array_equal(base, target) else self._file_bytes


class GridDifferences:
    """Weights rounded to multiples of 2**-`bits`, of which any two versions differ exactly by few small integers.

    What rounding leaves out stays with the coordinator, whose own weights are not rounded: no error adds up. A
    difference is packed by the update codec, its integers as float16, which holds those up to 2,048 exactly.
    """

    def __init__(self, description: TaskDescription, file_bytes: int, bits: int) -> None:
        self._shapes = description.shapes
        self._file_bytes = file_bytes
        self._step = np.float32(2.0**-bits)
        self._plan = UpdatePlan(1.0, quantisation="float16", selection="threshold", threshold=0.5)

    def published(self, weights: FloatVector) -> FloatVector:
        """See `Downlink`."""
        rounded: FloatVector = np.rint(weights / self._step) * self._step
        return rounded

    def size(self, base: FloatVector | None, target: FloatVector) -> int:
        """See `Downlink`; the whole file where that is smaller."""
        start = np.zeros_like(target) if base is None else base
        integers = np.rint((target - start) / self._step).astype(np.float32)
        if not integers.any():
            return 0
        packed = encode_update(integers, self._shapes, self._plan, np.random.default_rng(0)).packed
        return min(len(packed), self._file_bytes)


def chunk_sizes(size: int) -> list[int]:
    """The chunks in which a blob of `size` bytes travels."""
    return [min(MAX_CHUNK_BYTES, size - start) for start in range(0, size, MAX_CHUNK_BYTES)]
