"""RFA, the geometric median by smoothed Weiszfeld steps (Pillutla, Kakade & Harchaoui 2022, algorithm 2).

z = argmin sum |z - x_i|:     b_i = 1 / max(nu, |z - x_i|),     z = sum(b_i * x_i) / sum(b_i),     beginning with 0
"""

from typing import Final

import numpy as np

from broker_coordinator.aggregation.robust.rule import Compared
from broker_coordinator.aggregation.robust.stack import Vector

STEPS: Final = 32
"""The paper takes 3, of which each is a message to every device; here a step costs a pass over the updates."""
SMOOTHING: Final = 1e-6
"""nu, as a share of the longest update."""


def geometric_median(compared: Compared) -> Vector:
    """See above."""
    stack = compared.stack
    centre = np.zeros(stack.size)
    distances = stack.distances_to(centre)
    least = SMOOTHING * float(distances.max(initial=0))
    if not least:
        return centre
    for _ in range(STEPS):
        nearness = 1 / np.maximum(distances, least)
        centre = stack.combined(nearness / np.sum(nearness))
        distances = stack.distances_to(centre)
    return centre
