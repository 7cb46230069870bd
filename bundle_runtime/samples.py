"""Samples in memory, as training and evaluation take them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Samples:
    """`inputs` float32 [N, *shape]; `labels` int64 [N], or float32 [N, C]; `newest` is the id of the youngest."""

    inputs: NDArray[np.float32]
    labels: NDArray[np.int64] | NDArray[np.float32]
    newest: int
