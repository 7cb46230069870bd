"""What sample-level privacy draws: who is in a batch, and Gaussian noise. All of it from a cryptographic generator.

A statistical generator would not do: who knows its state subtracts the noise (docs/privacy.md).
"""

import math
import os
from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge_agent.training.engine import BatchPlan

Draw = Callable[[int], bytes]
"""So many random bytes that nobody can predict."""

OF_THE_SYSTEM: Final[Draw] = os.urandom

_WORD: Final = np.dtype("<u8")
_WORD_BITS: Final = 64


def sampled_batches(sample_count: int, steps: int, sampling_rate: float, draw: Draw, seed: int) -> BatchPlan:
    """Batches that each hold each of the samples with probability `sampling_rate`, by itself; some may be empty.

    `seed` is for what a model draws, which need not be secret.
    """
    drawn = [np.flatnonzero(_words(sample_count, draw) <= _threshold(sampling_rate)) for _ in range(steps)]
    rows = np.zeros((steps, max(1, *(batch.size for batch in drawn))), np.int64)
    mask = np.zeros(rows.shape, np.float32)
    for step, batch in enumerate(drawn):
        rows[step, : batch.size] = batch
        mask[step, : batch.size] = 1.0
    return BatchPlan(rows, mask, seed % 2**32)


def gaussian_integers(count: int, deviation: float, draw: Draw) -> NDArray[np.float64]:
    """So many whole numbers, each a Gaussian of this standard deviation rounded to the nearest; float64 [count].

    Box & Muller 1958. A rounded one has none of the low bits by which Mironov 2012 ("On significance of the least
    significant bits for differential privacy") tells from which sum a noised float can have come; so `deviation` must
    be far above 1 and far below 2**53. The radius is drawn from 128 bits: it ends 13.3 deviations out, where a sample
    that moves the sum by three more would still have to be met by a chance of 1e-23.
    """
    whole, fraction, turn = _words(3 * ((count + 1) // 2), draw).reshape(3, -1)
    uniform = (whole + (fraction + 1.0) * 2.0**-_WORD_BITS) * 2.0**-_WORD_BITS
    radius = np.sqrt(-2 * np.log(uniform))
    angle = (2 * math.pi * 2.0**-_WORD_BITS) * turn
    values = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:count]
    return np.rint(values * deviation)


def _words(count: int, draw: Draw) -> NDArray[np.uint64]:
    return np.frombuffer(draw(_WORD.itemsize * count), _WORD)


def _threshold(probability: float) -> np.uint64:
    """The largest of the 64-bit words that stand for yes."""
    return np.uint64(max(int(probability * 2.0**_WORD_BITS), 1) - 1)
