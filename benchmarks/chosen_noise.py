"""What weights by noise are worth where some devices add none: 100 devices with unequal shares of MNIST.

    python -m benchmarks.chosen_noise --data ../shared/data [--seeds 1] [--epsilon 2] [--shares 0.1 0.5]

The fleet and the plan of `benchmarks.privacy_utility`, and its learning rate, which no data chose. A share of the
devices, drawn by the seed, adds no noise; the others have that of the task. Three weights: all alike; inverse variances,
of which one device has at most 1.5 times the median of others (the default); and the same with a bound of 1000. t10k
shows the result.
"""

import argparse
import json
import math
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np

from benchmarks.mnist import read_mnist
from benchmarks.mnist_fleet import unequal_fleet
from benchmarks.privacy_utility import (
    CLIENTS,
    CONCENTRATION,
    FEWEST,
    LAST_SCORES,
    RECIPE,
    ROUNDS,
    TRAINING_AT_A_TIME,
    USUAL_RATE,
    Split,
    with_epsilon,
)
from benchmarks.zoo.samples.pictures import mnist20k
from bundle_runtime.bundle import Bundle
from bundle_runtime.bundle_folder import load_bundle
from bundle_runtime.samples import Samples
from edge_agent.core.privacy_settings import PrivacySettings
from fleet_protocol.privacy.privacy_plan import PrivacyPlan
from workbench.data.partition import dirichlet_parts
from workbench.export.bundle_writer import export_bundle
from workbench.simulation.conditions import FleetMember
from workbench.simulation.simulation import Options, Simulation
from workbench.simulation.workload import trained_workload

WEIGHTS = {"alike": 0.0, "by noise, at most 1.5 times the median": 1.5, "by noise, at most 1000 times": 1000.0}


def with_weights(bundle: Bundle, most_times_median: float) -> Bundle:
    """The bundle with noise by choice; 0: all updates count alike."""
    task = bundle.description
    promised = task.sample_privacy
    if promised is None:
        raise ValueError(f"{task.task} has no [privacy.samples]")
    plan = msgspec.structs.replace(promised, optional=True, most_times_median=most_times_median or 1.0)
    aggregation = task.aggregation if most_times_median else msgspec.structs.replace(task.aggregation, max_samples=1)
    return Bundle(msgspec.structs.replace(task, privacy=PrivacyPlan(plan), aggregation=aggregation), bundle.files)


def mixed_fleet(seed: int, share: float) -> list[FleetMember]:
    """The fleet of `privacy_utility`, in which a share adds no noise."""
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
    return float(np.mean([point.score for point in history[-LAST_SCORES:]]))


def compared(folder: Path, split: Split, epsilon: float, shares: Iterable[float], seeds: int) -> None:
    """Print a row for each share and each kind of weights."""
    bundle = with_epsilon(load_bundle(folder), epsilon, USUAL_RATE)
    for share in shares:
        for name, most in WEIGHTS.items():
            weighted = with_weights(bundle, most)
            found = [accuracy(folder, weighted, split, seed, share) for seed in range(1, seeds + 1)]
            print(json.dumps({"without_noise": share, "weights": name, "accuracy": found}), flush=True)


def main() -> None:
    """Print the rows as they are found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--epsilon", type=float, default=2.0)
    parser.add_argument("--shares", type=float, nargs="*", default=[0.1, 0.5])
    options = parser.parse_args()
    everything, digits = mnist20k(options.data), read_mnist(options.data)
    flat = Samples(everything.inputs.reshape(len(everything), -1), everything.labels)
    shown = Samples(digits.images.reshape(len(digits.labels), -1), digits.labels)
    with tempfile.TemporaryDirectory() as folder:
        export_bundle(RECIPE, Path(folder))
        compared(Path(folder), Split(flat, shown), options.epsilon, options.shares, options.seeds)


if __name__ == "__main__":
    main()
