"""The statistics of all devices together. Pure.

    mean of class c = sum_k count_kc mean_kc / sum_k count_kc
    scatter = sum_k count_k covariance_k + sum_kc count_kc (mean_kc - mean_c)(mean_kc - mean_c)^T

(Chan, Golub and LeVeque 1983, for many parts at once.) The sums run in float64 over the devices in the order of their
names: so they are the same to the last bit in whatever order messages came, and without a device they are what they
would be had it never sent anything.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median

import numpy as np
from numpy.typing import NDArray

from fleet_protocol.codec import ClassStatistics
from fleet_protocol.codec.class_statistics import Table
from fleet_protocol.solved_head import SolvedHead, Solver

ByDevice = Mapping[str, ClassStatistics]
"""The newest of each device, by its name."""


@dataclass(frozen=True, slots=True)
class Pooled:
    """Of all samples: `counts` float64[C] of each class, `means` float64[C, D], zero where there is none.

    `within` is the scatter of features about the mean of their class: for `ridge` [D, D], of all samples; for
    `gaussian` [C, D], of each class and feature; for `means` [D, D], of the devices' means about that of their class,
    each times its count. `parts` float64[C] counts the devices that have a class.
    """

    counts: Table
    means: Table
    within: Table
    parts: Table

    @property
    def present(self) -> NDArray[np.bool_]:
        """Of which classes there are samples, bool[C]."""
        return self.counts > 0

    @property
    def samples(self) -> float:
        """Over all classes."""
        return float(self.counts.sum())

    @property
    def mean(self) -> Table:
        """Of all samples, float64[D]."""
        return weighted_sum(self.counts / self.samples, self.means)


def most_counted(by_device: ByDevice, plan: SolvedHead, max_samples: int) -> float:
    """As how many samples a device counts at most: `max_samples`, and so many times the median of all devices' samples
    as the plan says. It follows from the set of devices alone, as the sums do.
    """
    if not plan.most_times_median:
        return max_samples
    return min(max_samples, plan.most_times_median * median(part.samples for part in by_device.values()))


def pooled(by_device: ByDevice, solver: Solver, most_samples: float) -> Pooled:
    """Those of all devices, of which there is one at least; a device counts as at most `most_samples` samples."""
    parts = [by_device[device] for device in sorted(by_device)]
    counts = [_counted(part, most_samples) for part in parts]
    total, sums = np.zeros_like(counts[0]), np.zeros_like(parts[0].means)
    for count, part in zip(counts, parts, strict=True):
        total += count
        sums += count[:, None] * part.means
    means = sums / np.where(total > 0, total, 1.0)[:, None]
    size = means.shape[1]
    within = np.zeros_like(means) if solver == "gaussian" else np.zeros((size, size))
    for count, part in zip(counts, parts, strict=True):
        apart = part.means - means
        if solver == "gaussian":
            within += count[:, None] * (part.spread + np.square(apart))
            continue
        if solver == "ridge":
            within += count.sum() * part.covariance
        for place in np.flatnonzero(part.present):
            within += np.multiply.outer(count[place] * apart[place], apart[place])
    having = np.array([part.present for part in parts]).sum(axis=0).astype(np.float64)
    return Pooled(total, means, within, having)


def weighted_sum(weights: Table, rows: Table) -> Table:
    """The sum of rows float64[N, D], each times its weight, added one after the other."""
    total = np.zeros(rows.shape[1])
    for weight, row in zip(weights, rows, strict=True):
        total += weight * row
    return total


def _counted(part: ClassStatistics, most: float) -> Table:
    """How many samples of each class count, float64[C]."""
    return part.counts.astype(np.float64) * min(1.0, most / part.samples)
