"""Groups of alike samples on one device: Lloyd's k-means (1982) without groups below a least size. Pure."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

ITERATIONS: Final = 20


def grouped(features: NDArray[np.float64], most: int, least: int) -> NDArray[np.int64]:
    """For each row of [N, D] the number of its group, int64[N]: of 1 to `most` groups, each of `least` rows or more.

    N is at least `least`. The same rows give the same groups.
    """
    centres = _spread_out(features, min(most, len(features) // least))
    while True:
        groups = _settled(features, centres)
        sizes = np.bincount(groups, minlength=len(centres))
        if len(centres) == 1 or sizes.min() >= least:
            return groups
        centres = np.delete(_centres(features, groups, centres), sizes.argmin(), axis=0)


def _spread_out(features: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """The row nearest to the middle, then again and again the one that is furthest from all before it."""
    distances = _distances(features, features.mean(axis=0, keepdims=True))[:, 0]
    chosen = [int(distances.argmin())]
    nearest = _distances(features, features[chosen])[:, 0]
    while len(chosen) < count:
        chosen.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, _distances(features, features[chosen[-1:]])[:, 0])
    return features[chosen]


def _settled(features: NDArray[np.float64], centres: NDArray[np.float64]) -> NDArray[np.int64]:
    groups: NDArray[np.int64] = _distances(features, centres).argmin(axis=1)
    for _ in range(ITERATIONS):
        centres = _centres(features, groups, centres)
        moved = _distances(features, centres).argmin(axis=1)
        if (moved == groups).all():
            break
        groups = moved
    return groups


def _centres(
    features: NDArray[np.float64], groups: NDArray[np.int64], before: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The mean of each group; that of an empty one stays where it was."""
    found = before.copy()
    for group in np.unique(groups):
        found[group] = features[groups == group].mean(axis=0)
    return found


def _distances(features: NDArray[np.float64], centres: NDArray[np.float64]) -> NDArray[np.float64]:
    """Squared, [N, K]."""
    found: NDArray[np.float64] = np.stack([np.square(features - centre).sum(axis=1) for centre in centres], axis=1)
    return found
