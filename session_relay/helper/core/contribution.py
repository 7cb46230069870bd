"""What a middle has changed while its sessions were open, for an ordinary update. Pure.

    delta[b] = sum(samples[s, b] * change[s, b]) / sum(samples[s, b])

of each block `b`, over the sessions `s` that have ended: `change` is from the weights that a session began with to
those that it left behind, whoever has trained them meanwhile, and `samples` those of its device. So a session stands
for its device's round in these blocks, as the device's own update does in the others
(docs/decisions/middles-of-helpers.md).
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fleet_protocol.codec.sparse import FloatVector
from fleet_protocol.limits import MAX_SAMPLES_PER_UPDATE

Weights = Mapping[int, FloatVector]
"""f32[Pk] of each block k."""


@dataclass(frozen=True, slots=True)
class Contribution:
    """For an ordinary update: `delta` f32[P], 0 in the blocks that others train; `held` has for each block of the task
    the samples that trained it; `steps` are the updates of the block that had the most.
    """

    delta: FloatVector
    held: list[int]
    steps: int


@dataclass(slots=True)
class BlockChange:
    """The sum over sessions that have ended, float64."""

    samples: int
    total: NDArray[np.float64]

    @property
    def held(self) -> int:
        """The samples that an update may say."""
        return min(self.samples, MAX_SAMPLES_PER_UPDATE)

    @property
    def mean(self) -> FloatVector:
        """f32[Pk]."""
        return np.asarray(self.total / self.samples, np.float32)


@dataclass(frozen=True, slots=True)
class _Session:
    samples: int
    began_with: Weights
    rows: Counter[int] = field(default_factory=Counter)

    def samples_of(self, block: int) -> int:
        """A device goes over its samples several times, and counts each once."""
        return min(self.rows[block], self.samples or self.rows[block])


class SessionChanges:
    """Blocks that a session has not trained are not its own, though others have changed them."""

    def __init__(self) -> None:
        self._open: dict[bytes, _Session] = {}
        self._ended: dict[int, BlockChange] = {}

    def open(self, session: bytes, samples: int, weights: Weights) -> None:
        """A session begins, whose blocks have these `weights`; its device trains on so many samples, 0 where that isn't
        known.
        """
        self._open[session] = _Session(samples, dict(weights))

    def count(self, session: bytes, block: int, rows: int) -> None:
        """Rows of a session's mini-batch have trained a block."""
        self._open[session].rows[block] += rows

    def close(self, session: bytes, weights: Weights) -> None:
        """A session is over, and leaves these weights; others than its blocks' may be among them."""
        ended = self._open.pop(session, None)
        if ended is None:
            return
        for block, began_with in ended.began_with.items():
            if samples := ended.samples_of(block):
                sum_ = self._ended.setdefault(block, BlockChange(0, np.zeros(began_with.size)))
                sum_.samples += samples
                sum_.total += samples * (weights[block] - began_with).astype(np.float64)

    def take(self) -> dict[int, BlockChange]:
        """Of the sessions that have ended since the last time, by block."""
        taken, self._ended = self._ended, {}
        return taken
