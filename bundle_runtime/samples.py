"""Samples in memory, as training and evaluation take them."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Samples:
    """`inputs` float32 [N, *shape]; `labels` int64 [N] where they are classes, else float32 [N, values].

    `newest` is the id of the youngest of those that come from a device's sample store.
    """

    inputs: NDArray[np.float32]
    labels: NDArray[np.int64] | NDArray[np.float32]
    newest: int = 0

    def __len__(self) -> int:
        """How many there are."""
        return len(self.labels)

    def take(self, rows: NDArray[np.int64] | slice) -> "Samples":
        """The given rows, in that order."""
        return replace(self, inputs=self.inputs[rows], labels=self.labels[rows])
