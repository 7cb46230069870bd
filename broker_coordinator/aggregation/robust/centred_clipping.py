"""Centred clipping (Karimireddy, He & Jaggi 2021, algorithm 2), around the last direction.

    v = v + mean of (x_i - v) * min(1, tau / |x_i - v|)          a few times; v begins with the last direction

The last direction is the server's velocity, which stands with each version. The paper leaves the radius tau to whoever
trains; here it is the median of all |x_i - v|, the smaller one of two in the middle, so that it follows the fleet.
"""

from typing import Final

import numpy as np

from broker_coordinator.aggregation.robust.rule import Compared
from broker_coordinator.aggregation.robust.stack import Vector

STEPS: Final = 3


def centred_clipping(compared: Compared) -> Vector:
    """See above."""
    stack, centre = compared.stack, compared.last_direction
    for _ in range(STEPS):
        distances = stack.distances_to(centre)
        radius = np.sort(distances)[(len(stack) - 1) // 2]
        within = np.divide(radius, distances, out=np.ones_like(distances), where=distances > radius) / len(stack)
        centre = centre * (1 - np.sum(within)) + stack.combined(within)
    return centre
