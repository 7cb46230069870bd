"""EF21 for a device's factor, and the plain residual for the other weights of the same update (`[posterior]`).

A factor is the sum of all that was sent of it (docs/decisions/factors-are-estimates.md). Of the other weights, the
estimate is what was sent less what was learned: the residual, with its sign turned. So both take what is sent alike.
"""

import numpy as np
from numpy.typing import NDArray

from edge_agent.training.feedback.ef21 import Ef21Feedback
from edge_agent.training.feedback.interface import scale_to
from fleet_protocol.codec import SparseUpdate
from fleet_protocol.codec.sparse import FloatVector, IndexVector
from fleet_protocol.update_plan import UpdatePlan


class FactorFeedback(Ef21Feedback):
    """`factor` are the places of an update that a factor is told in; `estimate` is as of EF21 there."""

    def __init__(self, plan: UpdatePlan, state: bytes, parameters: int, life: int, factor: IndexVector) -> None:
        super().__init__(plan, state, parameters, life)
        self._learned: NDArray[np.bool_] = np.ones(parameters, np.bool_)
        self._learned[factor] = False

    def give_up(self, rejected: SparseUpdate) -> None:
        """See `ErrorFeedback`. The residual has lost it already; a factor is what the coordinator has applied."""
        told = ~self._learned[rejected.indices]
        self.give_back(SparseUpdate(rejected.indices[told], rejected.values[told]))

    def offer(self, delta: FloatVector) -> FloatVector:
        """See `ErrorFeedback`."""
        self._estimate[self._learned] -= delta[self._learned]
        offered: FloatVector = np.where(self._learned, -self._estimate, delta - self._estimate).astype(np.float32)
        return offered

    def shrink(self, limit: float) -> float:
        """See `ErrorFeedback`: the residual alone."""
        residual = self._estimate[self._learned]
        forgotten = scale_to(residual, limit)
        self._estimate[self._learned] = residual
        return forgotten
