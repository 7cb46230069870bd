"""What versions that hide each device cost in accuracy: 1,000 devices with 20 digits each, at several epsilons.

    python -m benchmarks.device_privacy_utility --data ../shared/data [--epsilons 2 8 inf] [--kinds banded tree]
        [--devices 1000]

Fleets run in virtual time with the shipped cores, with each kind of noise at the same epsilon; a tenth of the devices
count in each version. The clip, the learning rate and the plan are written below, and no data chose them. t10k shows
the result.
"""

import argparse
import json
import math
import tempfile
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np

from benchmarks.mnist_fleet import unequal_fleet
from benchmarks.private_fleets import LAST_SCORES, NONE, RECIPE, Split, mnist_split
from broker_coordinator.aggregation.privacy_loss import gaussian_epsilon
from bundle_runtime.bundle import Bundle
from bundle_runtime.bundle_folder import load_bundle
from edge_agent.core.guards import GuardSettings
from fleet_protocol.privacy.device_privacy import DevicePrivacy, with_device_noise
from fleet_protocol.privacy.privacy_plan import PrivacyPlan
from workbench.data.partition import dirichlet_parts
from workbench.export.bundle_writer import export_bundle
from workbench.simulation.simulation import Options, Simulation
from workbench.simulation.workload import trained_workload

DEVICES, FEWEST, CONCENTRATION = 1000, 5, 0.3
VERSIONS, AT_MOST, BETWEEN = 40, 5, 8
CLIP = 0.5
KINDS = ("banded", "tree", "independent")


def buffer_of(devices: int) -> int:
    """How many of them count in a version, and train at a time."""
    return devices // 10


def with_devices_hidden(bundle: Bundle, epsilon: float, noise: str, devices: int = DEVICES) -> Bundle:
    """The bundle with the noise for this epsilon; without any, and unclipped, for `NONE`."""
    task = bundle.description
    changed = {"buffer_size": buffer_of(devices), "staleness_weighting": "constant"}
    aggregation = msgspec.structs.replace(task.aggregation, **changed)
    plan = None
    if epsilon != NONE:
        asked = {
            "epsilon": epsilon,
            "clip": CLIP,
            "versions": VERSIONS,
            "at_most": AT_MOST,
            "versions_between": BETWEEN,
            "noise": noise,
        }
        plan = PrivacyPlan(devices=with_device_noise(msgspec.convert(asked, DevicePrivacy), RECIPE.name))
    return Bundle(msgspec.structs.replace(task, aggregation=aggregation, privacy=plan), bundle.files)


def measured(
    folder: Path, epsilon: float, split: Split, seed: int, *, noise: str = "banded", devices: int = DEVICES
) -> dict[str, object]:
    """One row of the result."""
    bundle = with_devices_hidden(load_bundle(folder), epsilon, noise, devices)
    generator = np.random.default_rng((seed, 1))
    labels = split.pooled.labels.astype(np.int64)
    shares = dirichlet_parts(labels, devices, generator, fewest=FEWEST, concentration=CONCENTRATION)
    parts = [split.pooled.take(part) for part in shares]
    buffer = buffer_of(devices)
    options = Options(seed=seed, seconds=math.inf, updates=VERSIONS * buffer, score_every=buffer, concurrent=buffer)
    guards = GuardSettings(minimum_samples=1)
    fleet = [replace(member, guards=guards) for member in unequal_fleet(seed, devices)]
    workload = trained_workload(folder, bundle.description, parts, split.shown_on)
    result = Simulation(fleet, bundle, workload, options).run()
    scores = [point.score for point in result.history[-LAST_SCORES:]]
    row: dict[str, object] = {"devices": devices, "epsilon": None, "noise": None, "right": float(np.mean(scores))}
    if (plan := bundle.description.device_privacy) is not None:
        row |= {
            "epsilon": epsilon,
            "noise": noise,
            "bands": plan.bands,
            "noise_multiplier": round(plan.noise_multiplier, 3),
            "tight_epsilon": gaussian_epsilon(plan.mechanism_of(VERSIONS), plan.delta),
        }
    row |= {"versions": result.summary.versions, "refused": sum(each.times for each in result.summary.refused.values())}
    print(json.dumps(row), flush=True)
    return row


def main() -> None:
    """Print a row for each epsilon and kind of noise as it is found, and all of them as one JSON object at the end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--epsilons", type=float, nargs="*", default=[2.0, 8.0, NONE])
    parser.add_argument("--kinds", nargs="*", choices=KINDS, default=list(KINDS))
    parser.add_argument("--devices", type=int, default=DEVICES)
    options = parser.parse_args()
    split = mnist_split(options.data)
    with tempfile.TemporaryDirectory() as folder:
        export_bundle(RECIPE, Path(folder))
        rows = [
            measured(Path(folder), epsilon, split, options.seed, noise=noise, devices=options.devices)
            for epsilon in options.epsilons
            for noise in (("banded",) if epsilon == NONE else options.kinds)
        ]
    settings = {"devices": options.devices, "versions": VERSIONS, "at_most": AT_MOST, "versions_between": BETWEEN}
    print(json.dumps({**settings, "clip": CLIP, "delta": 1e-5, "rows": rows}))


if __name__ == "__main__":
    main()
