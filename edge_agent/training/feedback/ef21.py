"""EF21 (Richtarik, Sokolov and Fatkhullin 2021, algorithm 2): send how the delta differs from an estimate of it.

    sent = compress(delta - estimate)
    estimate = estimate + sent

The coordinator keeps the same estimate and aggregates with it (its strategy `ef21`). Updates on their way count as
applied; a rejected one is taken out again. Sums run in float64, where adding float32 values and taking them out again
leaves no trace, so both sides hold the same numbers once nothing is on its way.
"""

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from edge_agent.training.feedback.interface import StateLayout
from fleet_protocol.codec import SparseUpdate
from fleet_protocol.codec.sparse import FloatVector
from fleet_protocol.update_plan import UpdatePlan

_LIFE_BYTES = 8


class Ef21Feedback:
    """`estimate` is the sum of all updates that were applied or are on their way, float64, since this `life` began.

    A device whose memory was wiped begins another life, and the coordinator another estimate with it.
    """

    layout: ClassVar[StateLayout] = StateLayout(_LIFE_BYTES, np.dtype(np.float64))

    def __init__(self, _: UpdatePlan, state: bytes, parameters: int, life: int) -> None:
        self.life = int.from_bytes(state[:_LIFE_BYTES], "big") if state else life
        stored = np.frombuffer(state, np.float64, offset=_LIFE_BYTES) if state else np.zeros(parameters)
        self._estimate = stored.copy()

    @property
    def estimate(self) -> NDArray[np.float64]:
        """As it is now."""
        return self._estimate

    def give_back(self, rejected: SparseUpdate) -> None:
        """See `ErrorFeedback`."""
        self._estimate[rejected.indices] -= rejected.values

    def give_up(self, rejected: SparseUpdate) -> None:
        """See `ErrorFeedback`. The estimate holds what the coordinator has applied, whatever the reason."""
        self.give_back(rejected)

    def offer(self, delta: FloatVector) -> FloatVector:
        """See `ErrorFeedback`."""
        return (delta - self._estimate).astype(np.float32)

    def take(self, sent: SparseUpdate) -> None:
        """See `ErrorFeedback`."""
        self._estimate[sent.indices] += sent.values

    def shrink(self, _limit: float) -> float:
        """See `ErrorFeedback`. Nothing is left over: the estimate is what the coordinator has too."""
        return 0.0

    def state(self) -> bytes:
        """The life in 8 bytes, then the estimate as float64."""
        return self.life.to_bytes(_LIFE_BYTES, "big") + self._estimate.tobytes()
