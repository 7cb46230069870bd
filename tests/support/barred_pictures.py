"""Pictures with a bar, whose place is the class: two domains that lie and stand."""

import numpy as np

from benchmarks.split_gans.scenario import Domain, Labelled

PICTURES, TESTED = 7000, 50


def domain(name: str, *, upright: bool) -> Domain:
    """Of ten classes, all alike in number."""
    classes = np.arange(PICTURES) % 10
    pictures = np.random.default_rng(0).random((PICTURES, 28, 28), np.float32) * np.float32(0.2)
    for label in range(10):
        pictures[classes == label, 2 * label : 2 * label + 4] += np.float32(0.7)
    if upright:
        pictures = pictures.transpose(0, 2, 1)
    everything = Labelled(np.ascontiguousarray(pictures).reshape(PICTURES, -1), classes)
    return Domain(name, everything, everything.take(np.arange(TESTED)))
