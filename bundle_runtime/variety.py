"""How much the pictures of a class differ: what falls when a generator draws one picture again and again."""

import numpy as np
from numpy.typing import NDArray

from bundle_runtime.drawing import Drawer, UndrawableError


def variety(drawer: Drawer, count: int, seed: int) -> float:
    """The root of the mean variance of a value over `count` pictures of its class, over all values and classes, as a
    share of what lies between black and white; 0 where the model draws what is no number.

    Raises:
        ConfigurationError: the graph can't compute what it is fed.
    """
    try:
        variances = [_variance(list(drawer.draw(label, count, seed))) for label in drawer.classes]
    except UndrawableError:
        return 0.0
    return float(np.sqrt(np.mean(variances))) / (drawer.picture.maximum - drawer.picture.minimum)


def _variance(pictures: list[NDArray[np.float32]]) -> float:
    """The mean over the values of a picture."""
    return float(np.stack(pictures).var(axis=0, dtype=np.float64).mean())
