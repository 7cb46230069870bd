"""Error feedback as rounds use it: give back, offer, take, and state."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from fleet_protocol.codec import SparseUpdate
from fleet_protocol.codec.sparse import FloatVector


@dataclass(frozen=True, slots=True)
class StateLayout:
    """How `ErrorFeedback.state` is written: `header_bytes` that are no numbers, then values of one dtype."""

    header_bytes: int
    dtype: np.dtype[Any]


def scale_to(vector: NDArray[np.floating], limit: float) -> float:
    """Scale `vector` in place to a norm of at most `limit`; returns by how much its norm has shrunk."""
    norm = math.sqrt(float(np.square(vector, dtype=np.float64).sum()))
    if norm <= limit:
        return 0.0
    vector *= np.float32(limit / norm)
    return norm - limit


class ErrorFeedback(Protocol):
    """The memory of one task on one device. All vectors are float32 of the task's parameter count."""

    layout: ClassVar[StateLayout]

    @property
    def life(self) -> int:
        """What tells the coordinator's memory of this device from that of an earlier life; 0 where it keeps none."""
        ...

    def give_back(self, rejected: SparseUpdate) -> None:
        """Remember an update that was sent and not applied."""
        ...

    def give_up(self, rejected: SparseUpdate) -> None:
        """Forget an update that was sent and not applied: what was learned in it is not to be learned."""
        ...

    def offer(self, delta: FloatVector) -> FloatVector:
        """What is to be compressed after a round that changed the weights by `delta`."""
        ...

    def take(self, sent: SparseUpdate) -> None:
        """Forget what the receiver will decode."""
        ...

    def shrink(self, limit: float) -> float:
        """Scale what is remembered down to this norm; returns the norm of what is forgotten, 0 as a rule."""
        ...

    def state(self) -> bytes:
        """What the next round starts from."""
        ...
