"""A running quantile of the norms of a task's updates: one number instead of a window. Pure."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

STEP = 0.05
"""How far one update moves the estimate, as a fraction of it."""

WARM_UP_UPDATES = 20
"""From fewer norms than this no bound is derived."""


@dataclass(frozen=True, slots=True)
class NormQuantile:
    """A quantile of the norms seen so far, newer ones counting more (Andrew et al. 2021, section 2.1):

        estimate = estimate * exp(-step * ([norm <= estimate] - quantile))

    Refused norms are taken in too: else a fleet whose norms grow at once would stay shut out.
    """

    quantile: float
    estimate: float = 0.0
    seen: int = 0

    def after(self, norm: float) -> "NormQuantile":
        """The quantile once one more norm is seen."""
        if not self.seen or not self.estimate:
            return NormQuantile(self.quantile, norm, self.seen + 1)
        below = 1.0 if norm <= self.estimate else 0.0
        return NormQuantile(self.quantile, self.estimate * math.exp(STEP * (self.quantile - below)), self.seen + 1)

    def after_all(self, norms: Iterable[float]) -> "NormQuantile":
        """The quantile once all of these are seen, oldest first."""
        found = self
        for norm in norms:
            found = found.after(norm)
        return found

    def bound(self, factor: float) -> float:
        """`factor` times the quantile; infinite where the factor is 0 or too little is seen."""
        return factor * self.estimate if factor > 0 and self.seen >= WARM_UP_UPDATES else math.inf
