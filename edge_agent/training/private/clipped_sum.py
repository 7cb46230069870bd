"""The sum of clipped gradients, in whole numbers: what one sample adds to it has exactly the bound that it should.

Sums of floats depend on the order of what is added, and a norm rounds: both would let a sample move the sum by more
than the clip (Casacuberta et al. 2022, "Widespread underestimation of sensitivity in differentially private
libraries"). Whole numbers below 2**53 add up exactly in float64.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

UNITS_PER_DEVIATION: Final = 2.0**20
"""Whole numbers in one standard deviation of the noise: rounding to them costs a millionth of it."""
SAFETY: Final = 1 - 2.0**-40
"""Takes back what the norm, summed in float64, may be too small by."""


def clipped_sum(gradients: NDArray[np.float32], clip: float, unit: float) -> NDArray[np.float64]:
    """From the gradient of each row, f32[B, P], to the sum of what they add, whole numbers of `unit`, f64[P].

    Each row adds numbers whose Euclidean norm, times `unit`, is at most `clip`: scaled down, then cut off towards 0. A
    row with a gradient that is not finite adds nothing.
    """
    rows = gradients[np.isfinite(gradients).all(axis=1)].astype(np.float64)
    norms = np.sqrt((rows * rows).sum(axis=1))
    scales = SAFETY * clip / np.maximum(norms, clip)
    total: NDArray[np.float64] = np.trunc(rows * (scales / unit)[:, np.newaxis]).sum(axis=0)
    return total
