"""How much the pictures of a class differ: what falls when a generator draws one picture again and again."""

import numpy as np

from bundle_runtime.drawing import Drawer


def variety(drawer: Drawer, count: int, seed: int) -> float:
    """The root of the mean variance of a value over `count` pictures of its class, over all values and classes.

    Raises:
        ConfigurationError: the model draws what is no number.
    """
    variances = [
        np.stack(list(drawer.draw(label, count, seed))).var(axis=0, dtype=np.float64).mean() for label in drawer.classes
    ]
    return float(np.sqrt(np.mean(variances)))
