"""Updates as aggregation takes them, drawn at random."""

import numpy as np
from hypothesis import strategies as st

from broker_coordinator.aggregation.contribution import BufferedUpdate
from fleet_protocol.codec import SparseUpdate

SIZE = 12
"""Of the flat weight vector."""


@st.composite
def buffered_updates(draw) -> BufferedUpdate:
    """From one of three devices, up to 20 versions late for version 20."""
    indices = sorted(draw(st.sets(st.integers(0, SIZE - 1), min_size=1)))
    finite = st.floats(-10, 10, width=32)
    values = draw(st.lists(finite, min_size=len(indices), max_size=len(indices)))
    delta = SparseUpdate(np.array(indices, np.int64), np.array(values, np.float32))
    staleness = draw(st.integers(0, 20))
    device = draw(st.sampled_from(["attic", "barn", "cellar"]))
    return BufferedUpdate(device, delta, draw(st.integers(1, 1000)), 20 - staleness, staleness)


def dense(update: BufferedUpdate) -> np.ndarray:
    """Its delta, written out."""
    vector = np.zeros(SIZE)
    vector[update.delta.indices] = update.delta.values
    return vector


def update_of(
    *values: float, device: str = "attic", samples: int = 3, base: int = 0, staleness: int = 0, life: int = 0
):
    """An update with these values from the first index on."""
    delta = SparseUpdate(np.arange(len(values)), np.array(values, np.float32))
    return BufferedUpdate(device, delta, samples, base, staleness, life)
