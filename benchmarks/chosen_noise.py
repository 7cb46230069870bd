"""What weights by noise are worth where some devices add none: 100 devices with unequal shares of MNIST.

    python -m benchmarks.chosen_noise --data ../shared/data [--seeds 2] [--epsilon 2] [--shares 0.1 0.5 0.9]
        [--weights "by noise too"]

The fleet, the plan and the learning rate are those of `benchmarks.sample_privacy_utility`, and no data chose them. A
share of the devices, drawn by the seed, adds no noise; the others have that of the task. Three weights: by samples
alone; inverse variances, of which one device has at most 1.5 times the median of the others, as it ships; and the same
without that bound, which no coordinator has: it shows what the bound costs. t10k shows the result.
"""

import argparse
import json
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import product
from pathlib import Path
from statistics import fmean
from types import ModuleType
from typing import Any, Final
from unittest.mock import patch

import msgspec
import numpy as np

from benchmarks.mnist_fleet import unequal_fleet
from benchmarks.private_fleets import LAST_SCORES, RECIPE, Split, mnist_split
from benchmarks.sample_privacy_utility import (
    CLIENTS,
    CONCENTRATION,
    FEWEST,
    ROUNDS,
    TRAINING_AT_A_TIME,
    USUAL_RATE,
    with_epsilon,
)
from broker_coordinator.aggregation import bounds
from broker_coordinator.consumers import update
from bundle_runtime.bundle import Bundle
from bundle_runtime.bundle_folder import load_bundle
from edge_agent.core.privacy_settings import PrivacySettings
from fleet_protocol.privacy.privacy_plan import PrivacyPlan
from workbench.data.partition import dirichlet_parts
from workbench.export.bundle_writer import export_bundle
from workbench.simulation.conditions import FleetMember
from workbench.simulation.simulation import Options, Simulation
from workbench.simulation.workload import trained_workload

WEIGHTS: Final[Mapping[str, Sequence[tuple[ModuleType, str, Any]]]] = {
    "by samples alone": [(update, "counted_samples", lambda samples, _noise, _task: samples)],
    "by noise too": [],
    "by noise too, without a bound": [(module, "SAMPLES_FACTOR", 1e6) for module in (update, bounds)],
}
"""By their name, what of the coordinator is replaced for them."""


@contextmanager
def weighed(weights: str) -> Iterator[None]:
    """For as long as it lasts, updates count so."""
    with ExitStack() as replaced:
        for module, name, value in WEIGHTS[weights]:
            replaced.enter_context(patch.object(module, name, value))
        yield


def with_choice(bundle: Bundle) -> Bundle:
    """The bundle, whose owners may choose.

    Raises:
        ValueError: it has no [privacy.samples].
    """
    task = bundle.description
    if (promised := task.sample_privacy) is None:
        raise ValueError(f"{task.task} has no [privacy.samples]")
    plan = PrivacyPlan(msgspec.structs.replace(promised, owners_choose=True))
    return Bundle(msgspec.structs.replace(task, privacy=plan), bundle.files)


def mixed_fleet(seed: int, share: float) -> list[FleetMember]:
    """The fleet, of which a share adds no noise."""
    quiet = set(np.random.default_rng((seed, 2)).permutation(CLIENTS)[: round(share * CLIENTS)].tolist())
    owners = (PrivacySettings(noise="none" if device in quiet else "task") for device in range(CLIENTS))
    return [replace(member, owner=owner) for member, owner in zip(unequal_fleet(seed, CLIENTS), owners, strict=True)]


def accuracy(folder: Path, bundle: Bundle, split: Split, seed: int, share: float) -> float:
    """Of the versions at the end of a run in which every device has had its rounds."""
    labels = split.pooled.labels.astype(np.int64)
    generator = np.random.default_rng((seed, 1))
    rows = dirichlet_parts(labels, CLIENTS, generator, fewest=FEWEST, concentration=CONCENTRATION)
    options = Options(
        seed=seed, seconds=math.inf, updates=CLIENTS * ROUNDS, score_every=100, concurrent=TRAINING_AT_A_TIME
    )
    parts = [split.pooled.take(part) for part in rows]
    workload = trained_workload(folder, bundle.description, parts, split.shown_on)
    history = Simulation(mixed_fleet(seed, share), bundle, workload, options).run().history
    return fmean(point.score for point in history[-LAST_SCORES:])


def main() -> None:
    """Print a row for each share, seed and kind of weights as it is found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--epsilon", type=float, default=2.0)
    parser.add_argument("--shares", type=float, nargs="*", default=[0.1, 0.5, 0.9])
    parser.add_argument("--weights", nargs="*", choices=WEIGHTS, default=list(WEIGHTS))
    options = parser.parse_args()
    split = mnist_split(options.data)
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        export_bundle(RECIPE, folder)
        bundle = with_choice(with_epsilon(load_bundle(folder), options.epsilon, USUAL_RATE))
        for share, seed, weights in product(options.shares, range(1, options.seeds + 1), options.weights):
            with weighed(weights):
                right = accuracy(folder, bundle, split, seed, share)
            row = {"seed": seed, "without_noise": share, "weights": weights, "right": right}
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
