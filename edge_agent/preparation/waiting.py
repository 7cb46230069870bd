"""Samples whose labels have not come yet, in the order of their times; bounded. Pure."""

from array import array
from collections import deque
from collections.abc import Iterable

import msgspec

from fleet_protocol.limits import MIB

MAX_WAITING_BYTES = 1 * MIB
"""Of inputs of samples that wait for a label, of one series; the oldest make room."""

MAX_WAITING_SAMPLES = 10_000

Labelled = tuple[list[float], float | None]
"""The inputs of a sample, and its label where the task has one."""


class WaitingSample(msgspec.Struct, frozen=True):
    """`inputs` as float32 in bytes; `identifier` is what a label names it by, empty where none does."""

    at: float
    inputs: bytes
    identifier: str = ""

    def labelled(self, label: float) -> Labelled:
        """The sample."""
        values = array("f")
        values.frombytes(self.inputs)
        return values.tolist(), label


class WaitingSamples:
    """`unlabelled` counts those that were dropped without a label."""

    def __init__(self, samples: Iterable[WaitingSample] = (), unlabelled: int = 0) -> None:
        self._samples = deque(samples)
        self.unlabelled = unlabelled
        self._bytes = sum(len(sample.inputs) for sample in self._samples)

    def __len__(self) -> int:
        """How many wait."""
        return len(self._samples)

    @property
    def samples(self) -> list[WaitingSample]:
        """Oldest first."""
        return list(self._samples)

    def add(self, at: float, inputs: list[float], identifier: str = "") -> None:
        """One more waits, which is not older than the others."""
        sample = WaitingSample(at, array("f", inputs).tobytes(), identifier)
        self._samples.append(sample)
        self._bytes += len(sample.inputs)
        while self._bytes > MAX_WAITING_BYTES or len(self._samples) > MAX_WAITING_SAMPLES:
            self._drop_oldest()

    def with_identifier(self, identifier: str, label: float) -> list[Labelled]:
        """Those that a label names."""
        return self._taken([each for each in self._samples if each.identifier == identifier], label)

    def around(self, at: float, within: float, label: float) -> list[Labelled]:
        """Those whose time is at most `within` seconds from a label's."""
        return self._taken([each for each in self._samples if abs(each.at - at) <= within], label)

    def due(self, at: float, within: float, label: float) -> list[Labelled]:
        """Those of time `at` or before, whose label this is; where it came more than `within` seconds too late, nobody
        knows what it would have been.
        """
        self.drop_before(at - within)
        found = []
        while self._samples and self._samples[0].at <= at:
            found.append(self._samples[0].labelled(label))
            self._remove(self._samples[0])
        return found

    def drop_before(self, at: float) -> None:
        """Drop those that are older."""
        while self._samples and self._samples[0].at < at:
            self._drop_oldest()

    def clear(self) -> None:
        """Drop all."""
        while self._samples:
            self._drop_oldest()

    def _taken(self, found: list[WaitingSample], label: float) -> list[Labelled]:
        for each in found:
            self._remove(each)
        return [each.labelled(label) for each in found]

    def _remove(self, sample: WaitingSample) -> None:
        self._samples.remove(sample)
        self._bytes -= len(sample.inputs)

    def _drop_oldest(self) -> None:
        self._bytes -= len(self._samples.popleft().inputs)
        self.unlabelled += 1
