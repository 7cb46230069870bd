"""Where each device's updates point, in few numbers: what clusters are found by that need no helper. Pure.

    sketch(u)[h(i)] = sum of s(i) * u[i]           (count sketch: Charikar, Chen & Farach-Colton 2002)
    pull of a device = its newest sketch + DECAY * (its pull before), of updates from one copy

A sketch is linear and keeps scalar products up to an error of 1 / sqrt(VALUES) of the lengths. So sums of sketches are
sketches of sums; and what a sparse update leaves out, error feedback sends later: a sum of a device's updates is near
that of its whole changes, where two single ones may have no entry in common (docs/clusters.md).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fleet_protocol.cluster_plan import NO_CLUSTER
from fleet_protocol.codec import SparseUpdate
from fleet_protocol.codec.sparse import FloatVector, IndexVector
from fleet_protocol.task_description import TaskDescription

VALUES: Final = 256
"""Of a sketch: cosines are right to about 0.06, and a row of the journal is longer by 0.7 KB."""
DECAY: Final = 0.9
"""Of a device's own updates: about its last ten count."""
STORED: Final = "<f2"
"""How directions are kept."""

SEED, FIRST, SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
"""Of splitmix64 (Steele, Lea & Flood 2014), which spreads the places of parameters."""

Sketch = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Pull:
    """Where a device pulls the copy of a cluster: `total` float64[VALUES] of so many `updates` of that copy, of which
    `version` holds the newest.
    """

    cluster: int
    updates: int
    total: Sketch
    version: int = 0

    def after(self, cluster: int, direction: bytes, length: float, version: int) -> "Pull":
        """With one more update, of this `direction` and `length`. From another copy on, another sum begins: where
        copies lie differs more than how devices pull.
        """
        added = length * unpacked(direction)
        if cluster != self.cluster:
            return Pull(cluster, 1, added, version)
        return Pull(cluster, self.updates + 1, added + DECAY * self.total, version)


NO_PULL: Final = Pull(NO_CLUSTER, 0, np.zeros(VALUES))
"""Before the first update."""


def direction_of(delta: SparseUpdate, task: TaskDescription) -> bytes:
    """The sketch of an update, as a share of its length, as `packed`; `delta` is of the model's trained tensors, of
    which those that have copies count. Zeros where nothing of them changes.
    """
    indices, values = _copied(delta, task)
    return packed(_sketch(indices, values) / (delta.norm() or 1.0))


def packed(sketch: Sketch) -> bytes:
    """Of a direction, whose length is about 1 or less: float16[VALUES], as it is kept."""
    return sketch.astype(STORED).tobytes()


def unpacked(data: bytes) -> Sketch:
    """The other end of `packed`."""
    return np.frombuffer(data, STORED).astype(np.float64)


def directions(sketches: Mapping[str, Sketch]) -> dict[str, Sketch]:
    """Each of length 1, of those that have a length."""
    found = {name: _unit(sketch) for name, sketch in sketches.items()}
    return {name: each for name, each in found.items() if each.any()}


def residuals(found: Mapping[str, Sketch]) -> dict[str, Sketch]:
    """What is left of each direction without that in which all go together, the mean; each of length 1."""
    if not found:
        return {}
    common = np.mean(list(found.values()), axis=0)
    return {name: _unit(each - common) for name, each in found.items()}


def agreement(found: Mapping[str, Sketch]) -> float:
    """The mean cosine of two different devices' directions, from the length of their mean: 1 is all the same way.

        |mean|^2 = 1/K + (1 - 1/K) * agreement

    Noise that devices do not share adds nothing to it, however few they are. 1 of a single device.
    """
    count = len(found)
    if count < 2:
        return 1.0
    mean = np.mean(list(found.values()), axis=0)
    return float((mean @ mean - 1 / count) / (1 - 1 / count))


def _copied(delta: SparseUpdate, task: TaskDescription) -> tuple[IndexVector, FloatVector]:
    copied = np.array([each.name in task.version.copied for each in task.parameters])
    if copied.all():
        return delta.indices, delta.values
    ends = np.array(list(accumulate(each.size for each in task.parameters)))
    kept = copied[np.searchsorted(ends, delta.indices, side="right")]
    return delta.indices[kept], delta.values[kept]


def _sketch(indices: IndexVector, values: NDArray[np.floating]) -> Sketch:
    hashed = _spread(indices)
    signs = 1.0 - 2.0 * (hashed >> np.uint64(63)).astype(np.float64)
    buckets = (hashed % np.uint64(VALUES)).astype(np.int64)
    sketch: Sketch = np.bincount(buckets, signs * values.astype(np.float64), VALUES).astype(np.float64)
    return sketch


def _spread(indices: IndexVector) -> NDArray[np.uint64]:
    mixed = (indices.astype(np.uint64) + np.uint64(1)) * np.uint64(SEED)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(FIRST)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(SECOND)
    return mixed ^ (mixed >> np.uint64(31))


def _unit(sketch: Sketch) -> Sketch:
    """Zeros stay zeros; values may be as large, or as small, as a float64 can be."""
    largest = float(np.abs(sketch).max())
    if not largest:
        return sketch
    scaled = sketch / largest
    return scaled / float(np.linalg.norm(scaled))
