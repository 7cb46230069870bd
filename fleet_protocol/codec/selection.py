"""Stage 1, select: which entries of a delta are worth sending."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fleet_protocol.codec.sparse import FloatVector, IndexVector, TensorLayout, every_index
from fleet_protocol.update_plan import UpdatePlan

_BATCH = 1 << 16
_SAMPLE_KEPT = 16
"""A sample contains about this many of the kept entries, or more."""
_LARGEST_STRIDE = 63
"""A sample takes at least every 63rd entry."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Ascending `indices`; `seed` where they are `random_indices` of it, so that the seed can travel in their place."""

    indices: IndexVector
    seed: int | None = None


Selector = Callable[[FloatVector, TensorLayout, UpdatePlan, np.random.Generator], Selection]


def select(vector: FloatVector, layout: TensorLayout, plan: UpdatePlan, generator: np.random.Generator) -> Selection:
    """Choose entries of `vector` as `plan.selection` says. Of equal magnitudes the first ones are taken."""
    return SELECTORS[plan.selection](vector, layout, plan, generator)


def kept_count(size: int, keep_fraction: float) -> int:
    """`keep_fraction` of `size` entries, at least one."""
    return min(size, max(1, round(keep_fraction * size)))


def largest(vector: FloatVector, count: int) -> IndexVector:
    """Indices of the `count` entries largest in magnitude, ascending."""
    if count >= vector.size:
        return np.arange(vector.size, dtype=np.int64)
    magnitudes = np.abs(vector)
    candidates = _candidates(magnitudes, count)
    return (
        candidates[_largest(magnitudes[candidates], count)] if candidates.size >= count else _largest(magnitudes, count)
    )


def _candidates(magnitudes: FloatVector, count: int) -> IndexVector:
    """All entries above a threshold that a sample suggests; nearly always a few more than `count`.

    The threshold is the sample's own largest entries' share plus four standard deviations, so that the exact search
    has a few entries left to look at instead of all.
    """
    stride = min(_LARGEST_STRIDE, count // _SAMPLE_KEPT) | 1
    sample = magnitudes[::stride]
    expected = count / stride
    rank = math.ceil(expected + 4 * math.sqrt(expected))
    if stride == 1 or rank >= sample.size:
        return np.empty(0, np.int64)
    return np.flatnonzero(~(magnitudes < np.partition(sample, sample.size - rank)[sample.size - rank]))


def _largest(magnitudes: FloatVector, count: int) -> IndexVector:
    if count == magnitudes.size:
        return np.arange(count)
    smallest_kept = np.partition(magnitudes, magnitudes.size - count)[magnitudes.size - count]
    # NaN sorts last and compares with nothing: `~(<)` keeps it, so that a diverged delta is seen and not dropped.
    candidates = np.flatnonzero(~(magnitudes < smallest_kept))
    if candidates.size == count:
        return candidates
    ties = np.flatnonzero(magnitudes[candidates] == smallest_kept)
    return np.delete(candidates, ties[ties.size - (candidates.size - count) :])


def random_indices(seed: int, count: int, size: int) -> IndexVector:
    """`count` of `size` indices, ascending: the first distinct values of SplitMix64 (Steele et al. 2014), scaled.

    Above half of all, the indices that are left out are drawn. `size` is below 2^32.
    """
    drawn = np.zeros(size, np.bool_)
    missing = min(count, size - count)
    position = 0
    while missing:
        batch = min(_BATCH, missing + 8)
        scaled = ((_split_mix(seed, position, batch) >> np.uint64(32)) * np.uint64(size)) >> np.uint64(32)
        distinct, first = np.unique(scaled.astype(np.int64), return_index=True)
        fresh = np.flatnonzero(~drawn[distinct])
        earliest = fresh[np.argsort(first[fresh])[:missing]]
        drawn[distinct[earliest]] = True
        missing -= earliest.size
        position += batch
    return np.flatnonzero(drawn if 2 * count <= size else ~drawn)


def _split_mix(seed: int, position: int, count: int) -> NDArray[np.uint64]:
    """Outputs `position` to `position + count - 1` of the generator."""
    counter = np.arange(position + 1, position + count + 1, dtype=np.uint64)
    mixed = np.uint64(seed) + counter * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def _top_k(vector: FloatVector, _: TensorLayout, plan: UpdatePlan, __: np.random.Generator) -> Selection:
    return Selection(largest(vector, kept_count(vector.size, plan.keep_fraction)))


def _top_k_per_tensor(vector: FloatVector, layout: TensorLayout, plan: UpdatePlan, _: np.random.Generator) -> Selection:
    return Selection(
        np.concatenate([
            start + largest(vector[start:end], kept_count(end - start, plan.keep_fraction))
            for start, end in pairwise(layout.starts.tolist())
        ])
    )  # fmt: skip


def _threshold(vector: FloatVector, _: TensorLayout, plan: UpdatePlan, __: np.random.Generator) -> Selection:
    indices = np.flatnonzero(~(np.abs(vector) < plan.threshold))
    most = kept_count(vector.size, plan.keep_fraction)
    return Selection(indices if indices.size <= most else indices[largest(vector[indices], most)])


def _random_k(vector: FloatVector, _: TensorLayout, plan: UpdatePlan, generator: np.random.Generator) -> Selection:
    seed = int(generator.integers(2**63))
    return Selection(random_indices(seed, kept_count(vector.size, plan.keep_fraction), vector.size), seed)


def _dense(vector: FloatVector, _: TensorLayout, __: UpdatePlan, ___: np.random.Generator) -> Selection:
    return Selection(every_index(vector.size))


SELECTORS: Final[Mapping[str, Selector]] = {
    "top_k": _top_k,
    "top_k_per_tensor": _top_k_per_tensor,
    "threshold": _threshold,
    "random_k": _random_k,
    "dense": _dense,
}
