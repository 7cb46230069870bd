"""How a task's samples are shared out over a fleet."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from bundle_runtime.samples import Samples
from edge_agent.core.guards import GuardSettings
from fleet_protocol.sample_schema import LabelKind
from workbench.data.partition import dirichlet_parts, even_parts
from workbench.data.samples import STRATA

PartitionName = Literal["iid", "dirichlet-0.3", "dirichlet-0.1", "one-class"]
Rows = NDArray[np.int64]
PARTITION_STREAM = 5
FEWEST = GuardSettings().minimum_samples
"""Per device: with fewer it would never train."""
ATTEMPTS = 20
"""At a split: a large fleet's shares are so small that no draw gives each device enough."""


def shares(samples: Samples, kind: LabelKind, partition: PartitionName, devices: int, seed: int) -> list[Samples]:
    """A part for each of `devices`, or of fewer where there are too few samples."""
    strata = STRATA[kind](samples.labels)
    generator = np.random.default_rng((seed, PARTITION_STREAM))
    rows = PARTITIONS[partition](strata, fleet_size(len(samples), devices), generator)
    return [samples.take(part) for part in rows]


def fleet_size(samples: int, devices: int) -> int:
    """So many of `devices` that each has enough to train."""
    return max(1, min(devices, samples // FEWEST))


def applies(partition: PartitionName, kind: LabelKind) -> bool:
    """Whether samples with such labels can be shared out so."""
    return partition != "one-class" or kind == "class"


def _iid(strata: Rows, devices: int, generator: np.random.Generator) -> Sequence[Rows]:
    order = generator.permutation(strata.size)
    return [order[part] for part in even_parts(strata.size, devices, fewest=FEWEST)]


def _dirichlet(strata: Rows, devices: int, generator: np.random.Generator, *, concentration: float) -> Sequence[Rows]:
    return dirichlet_parts(strata, devices, generator, fewest=FEWEST, concentration=concentration, attempts=ATTEMPTS)


def _one_class(strata: Rows, devices: int, generator: np.random.Generator) -> Sequence[Rows]:
    """A class has as many devices as its share of the samples, one at least, and no more than have enough of it."""
    parts: list[Rows] = []
    for stratum in np.unique(strata):
        rows = generator.permutation(np.flatnonzero(strata == stratum))
        share = round(devices * rows.size / strata.size)
        parts += np.array_split(rows, max(1, min(share, rows.size // FEWEST)))
    return parts


PARTITIONS: Final[Mapping[PartitionName, Callable[[Rows, int, np.random.Generator], Sequence[Rows]]]] = {
    "iid": _iid,
    "dirichlet-0.3": partial(_dirichlet, concentration=0.3),
    "dirichlet-0.1": partial(_dirichlet, concentration=0.1),
    "one-class": _one_class,
}
