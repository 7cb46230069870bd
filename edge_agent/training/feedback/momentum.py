"""Momentum correction with factor masking: Deep Gradient Compression (Lin et al. 2018, section 3, algorithm 1).

    velocity = momentum * velocity + delta
    residual = residual + velocity

An entry that is sent loses its velocity, so that what was learned long ago does not push it further.
"""

from typing import ClassVar

import numpy as np

from edge_agent.training.feedback.interface import StateLayout, scale_to
from fleet_protocol.codec import SparseUpdate
from fleet_protocol.codec.sparse import FloatVector
from fleet_protocol.update_plan import UpdatePlan


class MomentumFeedback:
    """All velocities add up to all updates that were applied, plus the residual."""

    life = 0
    layout: ClassVar[StateLayout] = StateLayout(0, np.dtype(np.float32))

    def __init__(self, plan: UpdatePlan, state: bytes, parameters: int, _life: int) -> None:
        memory = np.frombuffer(state, np.float32).copy() if state else np.zeros(2 * parameters, np.float32)
        self._momentum = np.float32(plan.feedback_momentum)
        self._residual, self._velocity = memory[:parameters], memory[parameters:]

    def give_back(self, rejected: SparseUpdate) -> None:
        """See `ErrorFeedback`. The velocity stays masked: a rejection says nothing about it."""
        rejected.add_to(self._residual)

    def give_up(self, rejected: SparseUpdate) -> None:
        """See `ErrorFeedback`: it has left the residual already."""

    def offer(self, delta: FloatVector) -> FloatVector:
        """See `ErrorFeedback`."""
        self._velocity *= self._momentum
        self._velocity += delta
        self._residual += self._velocity
        return self._residual

    def take(self, sent: SparseUpdate) -> None:
        """See `ErrorFeedback`."""
        sent.add_to(self._residual, scale=-1.0)
        self._velocity[sent.indices] = 0.0

    def shrink(self, limit: float) -> float:
        """See `ErrorFeedback`. Velocities are what is added next: they shrink likewise, and unsaid."""
        scale_to(self._velocity, limit)
        return scale_to(self._residual, limit)

    def state(self) -> bytes:
        """The residual, then the velocity, as float32."""
        return self._residual.tobytes() + self._velocity.tobytes()
