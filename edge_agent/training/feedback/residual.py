"""Plain error feedback (Seide et al. 2014; Karimireddy et al. 2019, algorithm 2): the residual joins the next delta."""

from typing import ClassVar

import numpy as np

from edge_agent.training.feedback.interface import StateLayout, scale_to
from fleet_protocol.codec import SparseUpdate
from fleet_protocol.codec.sparse import FloatVector
from fleet_protocol.update_plan import UpdatePlan


class ResidualFeedback:
    """All deltas add up to all updates that were applied, plus the residual."""

    life = 0
    layout: ClassVar[StateLayout] = StateLayout(0, np.dtype(np.float32))

    def __init__(self, _: UpdatePlan, state: bytes, parameters: int, _life: int) -> None:
        self._residual = np.frombuffer(state, np.float32).copy() if state else np.zeros(parameters, np.float32)

    def give_back(self, rejected: SparseUpdate) -> None:
        """See `ErrorFeedback`."""
        rejected.add_to(self._residual)

    def give_up(self, rejected: SparseUpdate) -> None:
        """See `ErrorFeedback`: it has left the residual already."""

    def offer(self, delta: FloatVector) -> FloatVector:
        """See `ErrorFeedback`."""
        self._residual += delta
        return self._residual

    def take(self, sent: SparseUpdate) -> None:
        """See `ErrorFeedback`."""
        sent.add_to(self._residual, scale=-1.0)

    def shrink(self, limit: float) -> float:
        """See `ErrorFeedback`."""
        return scale_to(self._residual, limit)

    def state(self) -> bytes:
        """The residual, as float32."""
        return self._residual.tobytes()
