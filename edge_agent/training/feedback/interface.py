"""Error feedback as rounds use it: give back, offer, take, and state."""

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np

from fleet_protocol.codec import SparseUpdate
from fleet_protocol.codec.sparse import FloatVector


@dataclass(frozen=True, slots=True)
class StateLayout:
    """How `ErrorFeedback.state` is written: `header_bytes` that are no numbers, then values of one dtype."""

    header_bytes: int
    dtype: np.dtype[Any]


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

    def offer(self, delta: FloatVector) -> FloatVector:
        """What is to be compressed after a round that changed the weights by `delta`."""
        ...

    def take(self, sent: SparseUpdate) -> None:
        """Forget what the receiver will decode."""
        ...

    def state(self) -> bytes:
        """What the next round starts from."""
        ...
