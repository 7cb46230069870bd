"""Which devices are alike: how many clusters there are is found, and may be one. Pure.

A set of devices is divided where the best division of k-means (by the mean silhouette, over the number of clusters)
has some structure, and is better than that of nearly all of `DRAWS` sets that are a single cluster with exactly the
devices' covariance: a rotation test (Langsrud 2005), with the question that SigClust asks (Liu, Hayes, Nobel & Marron
2008). Each part is then looked at alone: else one device far from all others would hide how these differ.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from broker_coordinator.aggregation.clusters.k_means import Labels, Points, k_means, silhouette

PLAIN_FEDERATIONS = 2
"""The first ones, in which all devices are one cluster: before, activations tell little."""
DRAWS, MOST_AS_GOOD = 39, 1
"""So one set in twenty that is a single cluster is divided: where one draw, or none, divides as well as the devices."""
LEAST_SEPARATION = 0.25
"""A mean silhouette below it is "no substantial structure" (Kaufman & Rousseeuw 1990, "Finding groups in data")."""
LEAST_DIVIDED = 4
"""Three devices make a triangle: of one kind or not, it always has a shortest side."""
MOST_AT_ONCE = 6
"""Clusters that one division makes, at most."""
MOST_DEVICES = 256
"""All distances between them are looked at."""
NEGLIGIBLE = 1e-6
"""Differences, as a share of the values, that are float32's rounding."""

Activation = NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class Clusters:
    """The cluster of each device, numbered from 0 in the order of the devices' names, and why some have none."""

    of_device: Mapping[str, int]
    left_out: Mapping[str, str]

    @property
    def count(self) -> int:
        """How many there are; 0 without a device."""
        return len(set(self.of_device.values()))


def find_clusters(activations: Mapping[str, Activation], seed: int = 0) -> Clusters:
    """The clusters of devices by what a layer in the middle gives on their samples: the mean of it, [V], of each.

    The same activations and seed give the same clusters, in whatever order they come and whatever their scale is. A
    device whose activation is no finite vector as long as most of the others' is left out.

    Raises:
        ValueError: there are more than `MOST_DEVICES` devices.
    """
    if len(activations) > MOST_DEVICES:
        raise ValueError(
            f"{len(activations)} devices are to be clustered, more than MOST_DEVICES ({MOST_DEVICES}); give a sample"
            " of them"
        )
    left_out = unusable(activations)
    names = sorted(set(activations) - set(left_out))
    if not names:
        return Clusters({}, left_out)
    values = np.array([activations[name] for name in names], np.float64)
    labels = np.zeros(len(names), np.int64)
    parts = _parts(values, np.arange(len(names)), np.random.default_rng(seed))
    for number, part in enumerate(sorted(parts, key=lambda part: int(part[0]))):
        labels[part] = number
    return Clusters(dict(zip(names, labels.tolist(), strict=True)), left_out)


def unusable(activations: Mapping[str, Activation]) -> dict[str, str]:
    """Of which devices the activation can't be used, and why."""
    sizes = [activation.shape for activation in activations.values() if activation.ndim == 1 and activation.size]
    usual = max(sorted(set(sizes)), key=sizes.count, default=())
    reasons = {name: _why_unusable(activations[name], usual) for name in sorted(activations)}
    return {name: reason for name, reason in reasons.items() if reason}


def _why_unusable(activation: Activation, usual: tuple[int, ...]) -> str:
    if activation.shape != usual or not usual:
        return f"its activation has the shape {list(activation.shape)}, where the others have {list(usual)}"
    strange = int((~(np.abs(activation) <= np.finfo(np.float32).max)).sum())
    return f"{strange} of the {activation.size} values of its activation are no finite float32" if strange else ""


def _principal(values: Points) -> Points:
    """The same distances in as few dimensions as the devices span, and values of about 1."""
    largest = np.abs(values).max()
    centred = values - values.mean(axis=0)
    spread = np.abs(centred).max()
    if spread <= NEGLIGIBLE * largest:
        return np.zeros((len(values), 1))
    left, scales, _ = np.linalg.svd(centred / spread, full_matrices=False)
    return np.array(left * scales)


def _parts(values: Points, rows: Labels, generator: np.random.Generator) -> list[Labels]:
    """The rows of each cluster, ascending."""
    if len(rows) < LEAST_DIVIDED:
        return [rows]
    inside = _principal(values[rows])  # of these alone: what differs by more would round their differences away
    labels, separation = _best_division(inside, generator)
    if separation < LEAST_SEPARATION or not _is_no_single_cluster(inside, separation, generator):
        return [rows]
    return [part for label in range(labels.max() + 1) for part in _parts(values, rows[labels == label], generator)]


def _best_division(points: Points, generator: np.random.Generator) -> tuple[Labels, float]:
    """Into two clusters at least, and the mean silhouette of it; 0 where there is none."""
    best, separation = np.zeros(len(points), np.int64), 0.0
    for count in range(2, min(MOST_AT_ONCE, len(points) - 1) + 1):
        labels = k_means(points, count, generator)
        found = silhouette(points, labels)
        if found > separation:
            best, separation = labels, found
    return best, separation


def _is_no_single_cluster(points: Points, separation: float, generator: np.random.Generator) -> bool:
    as_good = 0
    for _ in range(DRAWS):
        as_good += _best_division(_single_cluster(points, generator), generator)[1] >= separation
        if as_good > MOST_AS_GOOD:
            return False
    return True


def _single_cluster(principal: Points, generator: np.random.Generator) -> Points:
    """Gaussian points of the same covariance as `principal`, whose columns are orthogonal and have no mean."""
    drawn = generator.standard_normal(principal.shape)
    directions, _ = np.linalg.qr(drawn - drawn.mean(axis=0))
    return np.array(directions * np.linalg.norm(principal, axis=0))
