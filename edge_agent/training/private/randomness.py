"""What sample-level privacy draws: who is in a batch, and Gaussian noise. All of it from a cryptographic generator.

A statistical generator would not do: who knows its state subtracts the noise (docs/privacy.md).
"""

import os
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bundle_runtime.gaussian_integers import WORD_BITS, Draw, words
from edge_agent.training.engine import BatchPlan, seed_of_steps

OF_THE_SYSTEM: Final[Draw] = os.urandom


def sampled_batches(
    sample_count: int,
    steps: int,
    sampling_rate: float,
    draw: Draw,
    seed: int,
    *,
    resting: NDArray[np.bool_] | None = None,
) -> BatchPlan:
    """Batches that each hold each of the samples with probability `sampling_rate`, by itself, but for those that are
    `resting`, bool [N]; some may be empty.

    `seed` is for what a model draws, which need not be secret.
    """
    taken = np.ones(sample_count, np.bool_) if resting is None else ~resting
    drawn = [np.flatnonzero(taken & (words(sample_count, draw) <= _threshold(sampling_rate))) for _ in range(steps)]
    rows = np.zeros((steps, max(1, *(batch.size for batch in drawn))), np.int64)
    mask = np.zeros(rows.shape, np.float32)
    for step, batch in enumerate(drawn):
        rows[step, : batch.size] = batch
        mask[step, : batch.size] = 1.0
    return BatchPlan(rows, mask, seed_of_steps(seed))


def _threshold(probability: float) -> np.uint64:
    """The largest of the 64-bit words that stand for yes."""
    return np.uint64(max(int(probability * 2.0**WORD_BITS), 1) - 1)
