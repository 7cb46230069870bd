"""One step of a helper's block for all devices, as in the published code: none goes on until all are there."""

from dataclasses import dataclass, field

import numpy as np

from benchmarks.chained_blocks import Held
from bundle_runtime.blocks import State
from fleet_protocol.codec.sparse import FloatVector

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8
"""Adam's, as `workbench/export/graphs/optimisers.py` has them."""
FIRST, SECOND, FIRST_BIAS, SECOND_BIAS = range(4)
"""Places in Adam's state."""


@dataclass(slots=True)
class SharedStep:
    """Adam's step of a block by the mean gradient of passes that all begin with the same weights and state.

    Each pass takes a step by its own gradient; from its first moments, b m + (1 - b) g, that of the mean gradient
    follows. Running statistics become the mean of what the passes made of them.
    """

    held: Held
    learning_rate: float
    _weights: FloatVector = field(init=False)
    _state: State = field(init=False)
    _passes: list[tuple[FloatVector, State]] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        """Remember what all passes begin with."""
        self._weights, self._state = self.held.weights, self.held.state

    def take_back(self) -> None:
        """A pass is done: the next one begins with what it began with."""
        self._passes.append((self.held.weights, self.held.state))
        self.held.weights, self.held.state = self._weights, self._state

    def end(self) -> None:
        """All passes are done."""
        weights = np.asarray(np.mean([weights for weights, _ in self._passes], axis=0, dtype=np.float64))
        self.held.state = self._passes[0][1]
        if (names := list(self._state)) and self._has_trained(names):
            moments = {name: np.asarray(np.mean([state[name] for _, state in self._passes], axis=0)) for name in names}
            before, after = ([np.asarray(each[name], np.float64) for name in names] for each in (self._state, moments))
            gradient = (after[FIRST] - BETA_1 * before[FIRST]) / (1 - BETA_1)
            after[SECOND] = BETA_2 * before[SECOND] + (1 - BETA_2) * gradient**2
            step = (after[FIRST] / after[FIRST_BIAS]) / (np.sqrt(after[SECOND] / after[SECOND_BIAS]) + EPSILON)
            weights[: step.size] = self._weights[: step.size] - self.learning_rate * step
            self.held.state = {name: np.asarray(each, np.float32) for name, each in zip(names, after, strict=True)}
        self.held.weights = weights.astype(np.float32)

    def _has_trained(self, names: list[str]) -> bool:
        """Whether the passes updated the block: those of the other part only go through it."""
        bias = names[FIRST_BIAS]
        return not np.array_equal(self._state[bias], self._passes[0][1][bias])
