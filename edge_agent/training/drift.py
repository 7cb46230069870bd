"""How far a device's newest samples are from its earlier ones: in the inputs, and in the loss of the model. Pure."""

import math

import numpy as np
from numpy.typing import NDArray

from edge_agent.worker.look import Look

QUARTILES = (0.25, 0.5, 0.75)
"""Few bins, for some tens of samples: by chance alone, the index of ten bins would pass what counts as a shift."""
HALF_A_SAMPLE = 0.5
"""Added to each bin, so that an empty one has a logarithm."""


def stability_index(earlier: NDArray[np.float32], newest: NDArray[np.float32]) -> float:
    """The population stability index of one input: how far the distribution of `newest` [M] is from that of `earlier`
    [N], in the quarters of the latter; less what so few samples have by chance on average.

    The sum over bins of (p - q) ln(p / q), whose mean without a shift is (bins - 1) (1/N + 1/M) (Yurdakul 2018).
    """
    edges = np.unique(np.quantile(earlier, QUARTILES))
    before, after = (_counts(values, edges) for values in (earlier, newest))
    used = (before + after) > 0
    before, after = before[used] + HALF_A_SAMPLE, after[used] + HALF_A_SAMPLE
    expected, found = before / before.sum(), after / after.sum()
    index = float(((found - expected) * np.log(found / expected)).sum())
    return index - (int(used.sum()) - 1) * (1 / earlier.size + 1 / newest.size)


def largest_shift(earlier: NDArray[np.float32], newest: NDArray[np.float32]) -> float:
    """The largest index of any input, of samples [N, ...] and [M, ...]. Missing values (NaN) are left out."""
    before, after = earlier.reshape(len(earlier), -1), newest.reshape(len(newest), -1)
    indices = [
        stability_index(old, new)
        for old, new in (
            (before[~np.isnan(before[:, column]), column], after[~np.isnan(after[:, column]), column])
            for column in range(before.shape[1])
        )
        if old.size and new.size
    ]
    return max(indices, default=0.0)


def compare(inputs: NDArray[np.float32], losses: NDArray[np.float32], newest: int) -> Look:
    """What a look at stored samples finds, oldest first: `inputs` [N, ...] and the loss of each, [N]; the last `newest`
    are compared with all before them.
    """
    before, after = losses[:-newest].astype(np.float64), losses[-newest:].astype(np.float64)
    error = math.sqrt(before.var() / before.size + after.var() / after.size)
    shift = largest_shift(inputs[:-newest], inputs[-newest:])
    return Look(float(before.mean()), float(after.mean()), error, shift, before.size)


def _counts(values: NDArray[np.float32], edges: NDArray[np.float32]) -> NDArray[np.float64]:
    """How many lie below the first edge, on it, between it and the next, and so on: inputs may have few values."""
    places = np.searchsorted(edges, values, "left") + np.searchsorted(edges, values, "right")
    return np.bincount(places, minlength=2 * len(edges) + 1).astype(np.float64)
