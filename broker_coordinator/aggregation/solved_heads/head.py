"""The last layer of a model: what a solver gives. Pure."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fleet_protocol.codec.sparse import FloatVector

UNSEEN_SCORE: Final = -1e4
"""Of a class that no device has: below every other score, and finite in float32."""


@dataclass(frozen=True, slots=True)
class Head:
    """scores = features @ weight.T + bias: `weight` float64[C, D], `bias` float64[C]."""

    weight: NDArray[np.float64]
    bias: NDArray[np.float64]

    def flat(self) -> FloatVector:
        """As the flat weights of a task, f32[C * D + C]."""
        return np.concatenate([self.weight.ravel(), self.bias]).astype(np.float32)
