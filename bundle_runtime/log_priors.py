"""What a loss that balances classes adds to its scores, counted from a device's labels outside of a graph."""

from collections.abc import Collection, Mapping

import numpy as np
from numpy.typing import NDArray

from fleet_protocol.sample_schema import LabelSchema, qualified, runs

LOG_PRIOR = "log_prior"
"""The name of the graphs' input; of several heads it has theirs behind it."""
BALANCE = 0.5
"""0 is plain cross entropy, 1 makes up for the frequencies in full. Half did best on unevenly spread digits."""


def log_priors(
    heads: Mapping[str, LabelSchema], labels: NDArray[np.int64] | NDArray[np.float32], asked: Collection[str]
) -> dict[str, NDArray[np.float32]]:
    """f32[classes] by the graph's name of it, for those heads that `asked` names: `BALANCE` times the log of the
    classes' frequencies, each class counted once more (Laplace's rule), so that one which never came up stays finite.

    `labels` are i64[N], or f32[N, values] of all heads.
    """
    table = labels.reshape(len(labels), -1)
    found = {}
    for head, schema, place in runs(heads):
        if (name := qualified(LOG_PRIOR, head)) in asked:
            classes = table[:, place].astype(np.int64).ravel()
            counts = np.bincount(classes, minlength=schema.classes).astype(np.float32) + 1
            found[name] = np.float32(BALANCE) * np.log(counts / counts.sum(dtype=np.float32))
    return found
