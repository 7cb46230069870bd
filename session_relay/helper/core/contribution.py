"""Who has trained the blocks of a middle since its last update, and on how many samples. Pure."""

from dataclasses import dataclass

from fleet_protocol.codec.sparse import FloatVector
from fleet_protocol.limits import MAX_SAMPLES_PER_UPDATE


@dataclass(frozen=True, slots=True)
class Contribution:
    """For an ordinary update: `delta` f32[P], 0 in the blocks that others train; `held` has for each block of the task
    the samples that trained it; `steps` are the updates of the block that had the most.
    """

    delta: FloatVector
    held: list[int]
    steps: int


class TrainedRows:
    """Rows of mini-batches, by block and session. A session counts each block at most once for every sample that its
    device has, as the device does: it goes over them several times.
    """

    def __init__(self) -> None:
        self._samples: dict[bytes, int] = {}
        self._rows: dict[int, dict[bytes, int]] = {}

    def meet(self, session: bytes, samples: int) -> None:
        """A session whose device trains on so many samples; 0 where that isn't known."""
        self._samples[session] = samples

    def count(self, session: bytes, block: int, rows: int) -> None:
        """Rows of a session have trained a block."""
        of_block = self._rows.setdefault(block, {})
        of_block[session] = of_block.get(session, 0) + rows

    def held(self, block: int) -> int:
        """The samples that have trained the block since `clear`."""
        counted = (min(rows, self._samples.get(session) or rows) for session, rows in self._rows.get(block, {}).items())
        return min(sum(counted), MAX_SAMPLES_PER_UPDATE)

    def clear(self) -> None:
        """Begin to count anew."""
        self._rows.clear()
