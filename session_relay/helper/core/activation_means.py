"""What a block gives on devices' samples, as a mean for each session (docs/clusters.md). Pure."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from bundle_runtime.blocks import Floats
from fleet_protocol.activation_plan import LEAST_ROWS, activation_block, summary_values
from fleet_protocol.cluster_plan import ClusterPlan
from fleet_protocol.split_plan import SplitPlan

Sums = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ActivationMean:
    """Over so many `rows`, f32[values]."""

    rows: int
    mean: Floats


@dataclass(slots=True)
class _Total:
    sums: Sums
    rows: int = 0
    most_at_once: int = 0


@dataclass(slots=True)
class ActivationMeans:
    """Of what `block` gives in its call `call`; a mean has so many `values`: all, or one for each channel."""

    block: int
    call: int | None
    values: int
    _totals: dict[bytes, _Total] = field(default_factory=dict)

    @classmethod
    def of(cls, plan: ClusterPlan | None, split: SplitPlan) -> "ActivationMeans | None":
        """For a task with these clusters; None where nothing is found by activations."""
        if plan is None or not plan.activations:
            return None
        return cls(activation_block(plan, split), plan.call, summary_values(plan, split))

    def sums(self, output: Floats) -> Sums:
        """f64[values] of what the block gave, f32[rows, ...]: the sum over rows."""
        called = output if self.call is None else output[:, self.call]
        by_value = np.asarray(called, np.float64).reshape(len(called), self.values, -1)
        return np.array(by_value.mean(axis=2).sum(axis=0))

    def count(self, session: bytes, rows: int, sums: Sums) -> None:
        """Add a pass that has trained the block. One that is not finite does not count."""
        if np.isfinite(sums).all():
            total = self._totals.setdefault(session, _Total(np.zeros(self.values)))
            total.sums += sums
            total.rows += rows
            total.most_at_once = max(total.most_at_once, rows)

    def take(self, session: bytes, samples: int = 0) -> ActivationMean | None:
        """What a session has come to, which is forgotten; None of too few different samples (`LEAST_ROWS`).

        Its device has so many `samples`; where that is 0, unknown, those of one mini-batch are different ones.
        """
        total = self._totals.pop(session, None)
        if total is None or min(total.rows, samples or total.most_at_once) < LEAST_ROWS:
            return None
        return ActivationMean(total.rows, (total.sums / total.rows).astype(np.float32))
