"""k-means over few points, and how well what it finds is separated. Pure."""

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]
Labels = NDArray[np.int64]

STARTS, MOST_ITERATIONS = 4, 50
ROUNDING = 1e-13
"""Of squared distances, as a share of the squared length of the longest point."""


def k_means(points: Points, count: int, generator: np.random.Generator) -> Labels:
    """The cluster int64[N] of each of the points float64[N, D]: of several starts (k-means++, Arthur & Vassilvitskii
    2007), the one after which the points are nearest to their centres. Fewer than `count` where points coincide.
    """
    best, least = np.zeros(len(points), np.int64), np.inf
    for _ in range(STARTS):
        labels, distance = _from_one_start(points, _first_centres(points, count, generator))
        if distance < least:
            best, least = labels, distance
    return np.unique(best, return_inverse=True)[1]


def silhouette(points: Points, labels: Labels) -> float:
    """The mean silhouette of the points, from -1 to 1, well separated; a cluster of one has 0 (Rousseeuw 1987).

    It does not change with the scale of the points. 0 where there is one cluster.
    """
    members = np.eye(int(labels.max()) + 1)[labels]
    sizes = members.sum(axis=0)
    if len(sizes) < 2:
        return 0.0
    summed = np.sqrt(_squared_distances(points, points)) @ members
    own = sizes[labels]
    rows = np.arange(len(points))
    inside = summed[rows, labels] / np.maximum(own - 1, 1)
    others = summed / sizes
    others[rows, labels] = np.inf
    nearest = others.min(axis=1)
    larger = np.maximum(inside, nearest)
    values = np.divide(nearest - inside, larger, out=np.zeros_like(larger), where=larger > 0)
    return float(np.where(own > 1, values, 0.0).mean())


def _first_centres(points: Points, count: int, generator: np.random.Generator) -> Points:
    chosen = [int(generator.integers(len(points)))]
    nearest = _squared_distances(points, points[chosen])[:, 0]
    while len(chosen) < count and nearest.sum() > 0:
        chosen.append(int(generator.choice(len(points), p=nearest / nearest.sum())))
        nearest = np.minimum(nearest, _squared_distances(points, points[chosen[-1:]])[:, 0])
    return points[chosen]


def _from_one_start(points: Points, centres: Points) -> tuple[Labels, float]:
    """Lloyd's iterations: labels, and the summed squared distance from the centres."""
    labels = np.full(len(points), -1)
    for _ in range(MOST_ITERATIONS):
        distances = _squared_distances(points, centres)
        nearest = distances.argmin(axis=1)
        if (nearest == labels).all():
            break
        labels = nearest
        members = np.eye(len(centres))[labels]
        sizes = members.sum(axis=0)[:, None]
        centres = np.where(sizes > 0, members.T @ points / np.maximum(sizes, 1), centres)
    return labels, float(_squared_distances(points, centres)[np.arange(len(points)), labels].sum())


def _squared_distances(points: Points, others: Points) -> Points:
    """float64[N, M]; exactly 0 where two points are as near as rounding can tell."""
    lengths, other_lengths = np.square(points).sum(axis=1), np.square(others).sum(axis=1)
    squares = lengths[:, None] + other_lengths - 2 * points @ others.T
    least = ROUNDING * max(lengths.max(initial=0.0), other_lengths.max(initial=0.0))
    return np.where(squares > least, squares, 0.0)
