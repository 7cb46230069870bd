"""What a case's scores come to: the gap to pooled training, and whether the fleet lost what it had learned. Pure."""

import math
from collections.abc import Sequence

KEPT_SHARE = 0.97
"""A fleet that ends below this share of its own best has collapsed."""
WORST = -1.0
"""R2 has no lower bound: a model that is worse than this counts as this."""


def bounded(score: float) -> float:
    """A score that means and medians can be taken of."""
    return max(score, WORST) if math.isfinite(score) else WORST


def gap(pooled: float, final: float) -> float:
    """How far the fleet is below pooled training, in points: hundredths of accuracy or R2."""
    return 100 * (bounded(pooled) - bounded(final))


def collapsed(scores: Sequence[float]) -> bool:
    """Whether the last of a fleet's scores is well below the best of them, which must be better than nothing."""
    best = max(map(bounded, scores))
    return best > 0 and bounded(scores[-1]) < KEPT_SHARE * best
