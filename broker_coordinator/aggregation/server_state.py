"""The server's state: what the next version is made from. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fleet_protocol.codec.sparse import FloatVector

Remembered = Mapping[Any, Any]
"""What a strategy keeps between versions; it alone knows what the keys and values are. Empty at version 0."""


@dataclass(frozen=True, slots=True)
class ServerState:
    """Version `version` as the next one is made from it.

    `weights` are flat, float32. `moments` are the server optimiser's, float32, one row each, as long as the weights.
    `step` is a factor on the server's learning rate, below 1 after a collapse (`aggregation.collapse`). `clip` is the
    largest norm of an update in the next version, where it follows those in earlier ones; None: the task says it.
    """

    version: int
    weights: FloatVector
    moments: NDArray[np.float32]
    remembered: Remembered = field(default_factory=dict)
    step: float = 1.0
    clip: float | None = None
