"""What forward passes leave for their backward passes: the inputs of each block, within a limit of bytes. Pure."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bundle_runtime.blocks import Floats
from bundle_runtime.trained_block import Then


@dataclass(frozen=True, slots=True)
class PassKey:
    """Which forward pass of a session it is: that of `step` through the blocks from `first` to before `end`."""

    session: bytes
    step: int
    first: int
    end: int


@dataclass(frozen=True, slots=True)
class KeptPass:
    """`inputs` f32[rows, ...] of each of its `blocks`, and how those stood."""

    inputs: Sequence[Floats]
    blocks: Sequence[Then]
    seed: int
    activation: NDArray[np.float64] | None = None
    """`session_relay.helper.core.activation_means` of it; None of a pass through other blocks."""

    @property
    def rows(self) -> int:
        """Samples of the mini-batch."""
        return len(self.inputs[0])

    @property
    def updates(self) -> tuple[int, ...]:
        """How many each block had had: those that are alike have met the same weights."""
        return tuple(each.updates for each in self.blocks)

    @property
    def size_bytes(self) -> int:
        """In memory, without the weights of the blocks, which other passes have met too."""
        return sum(each.nbytes for each in self.inputs)


class KeptPasses:
    """Where they are too many, the oldest of the session goes that keeps the most: nobody pays for another's flood."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._passes: dict[PassKey, KeptPass] = {}
        self._bytes: dict[bytes, int] = {}
        self._holders = Counter[int]()
        self._weights_bytes = 0
        self.dropped = 0
        """Passes that had to go before their backward pass came."""

    @property
    def size_bytes(self) -> int:
        """Of all of them, and of the weights that their blocks had, each version once."""
        return sum(self._bytes.values()) + self._weights_bytes

    def keep(self, key: PassKey, kept: KeptPass, most: int) -> None:
        """Keep one; of its session, at most the `most` newest through the same blocks."""
        self.take(key)
        self._passes[key] = kept
        for block in kept.blocks:
            self._holders[id(block.weights)] += 1
            self._weights_bytes += block.weights.nbytes * (self._holders[id(block.weights)] == 1)
        self._bytes[key.session] = self._bytes.get(key.session, 0) + kept.size_bytes
        alike = [each for each in self._passes if (each.session, each.first) == (key.session, key.first)]
        for each in alike[: max(0, len(alike) - most)]:
            self._drop(each)
        while self._passes and self.size_bytes > self._limit:
            heaviest = max(self._bytes, key=self._bytes.__getitem__)
            self._drop(next(each for each in self._passes if each.session == heaviest))

    def look(self, key: PassKey) -> KeptPass | None:
        """The pass, which stays; None where there is none, or none any more."""
        return self._passes.get(key)

    def take(self, key: PassKey) -> KeptPass | None:
        """The pass, which goes."""
        kept = self._passes.pop(key, None)
        if kept is not None:
            self._bytes[key.session] -= kept.size_bytes
            for block in kept.blocks:
                self._holders[id(block.weights)] -= 1
                if not self._holders[id(block.weights)]:
                    del self._holders[id(block.weights)]
                    self._weights_bytes -= block.weights.nbytes
        return kept

    def forget(self, session: bytes) -> None:
        """Everything of a session."""
        for key in [each for each in self._passes if each.session == session]:
            self.take(key)
        self._bytes.pop(session, None)

    def _drop(self, key: PassKey) -> None:
        self.take(key)
        self.dropped += 1
