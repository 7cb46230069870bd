"""What privacy of samples costs in accuracy: 100 devices with 200 digits each, at several epsilons.

    python -m benchmarks.sample_privacy_utility --data ../shared/data [--epsilons 1 2 4 8 inf] [--choose]

Fleets run in virtual time with the shipped cores. Each device has the same samples throughout, so all of its rounds
tell of the same ones: `ROUNDS` rounds, then they are spent. Without `--choose`, every epsilon has `USUAL_RATE`, which
no data chose. With it, a learning rate of `RATES` is chosen for each epsilon on samples that no device has, `CHOOSING`
of the 20,000, with another seed. t10k, which no choice has seen, shows the result.
"""

import argparse
import json
import math
import tempfile
from pathlib import Path

import msgspec
import numpy as np

from benchmarks.mnist_fleet import TUNING_SEED, unequal_fleet
from benchmarks.private_fleets import LAST_SCORES, NONE, RECIPE, Split, mnist_split
from broker_coordinator.aggregation.privacy_loss import tight_epsilon
from bundle_runtime.bundle import Bundle
from bundle_runtime.bundle_folder import load_bundle
from fleet_protocol.privacy.privacy_plan import PrivacyPlan
from fleet_protocol.privacy.sample_privacy import with_noise
from workbench.data.partition import dirichlet_parts
from workbench.export.bundle_writer import export_bundle
from workbench.simulation.simulation import Options, Simulation
from workbench.simulation.workload import trained_workload

CLIENTS, FEWEST, CONCENTRATION = 100, 20, 0.3
ROUNDS = 10
TRAINING_AT_A_TIME = 20
CHOOSING = 2000
USUAL_RATE = 0.3
RATES = (0.1, 0.3, 1.0)


def with_epsilon(bundle: Bundle, epsilon: float, learning_rate: float) -> Bundle:
    """The bundle with the noise for this epsilon; without any for `NONE`."""
    task = bundle.description
    training = msgspec.structs.replace(task.training, learning_rate=learning_rate)
    plan = None
    if epsilon != NONE and (promised := task.sample_privacy) is not None:
        asked = msgspec.structs.replace(promised, epsilon=epsilon, rounds=ROUNDS, noise_multiplier=0.0)
        plan = PrivacyPlan(with_noise(asked, training.steps, RECIPE.name))
    return Bundle(msgspec.structs.replace(task, training=training, privacy=plan), bundle.files)


def accuracy(folder: Path, bundle: Bundle, split: Split, seed: int) -> float:
    """Of the versions at the end of a run in which every device has had its rounds."""
    generator = np.random.default_rng((seed, 1))
    labels = split.pooled.labels.astype(np.int64)
    shares = dirichlet_parts(labels, CLIENTS, generator, fewest=FEWEST, concentration=CONCENTRATION)
    parts = [split.pooled.take(part) for part in shares]
    options = Options(
        seed=seed, seconds=math.inf, updates=CLIENTS * ROUNDS, score_every=100, concurrent=TRAINING_AT_A_TIME
    )
    workload = trained_workload(folder, bundle.description, parts, split.shown_on)
    history = Simulation(unequal_fleet(seed, CLIENTS), bundle, workload, options).run().history
    return float(np.mean([point.score for point in history[-LAST_SCORES:]]))


def measured(
    folder: Path, epsilon: float, showing: Split, seed: int, choosing: Split | None = None
) -> dict[str, object]:
    """One row of the result; without `choosing`, of the usual learning rate."""
    bundle = load_bundle(folder)

    def of(rate: float, split: Split, seed: int) -> float:
        return accuracy(folder, with_epsilon(bundle, epsilon, rate), split, seed)

    chosen = max(RATES, key=lambda rate: of(rate, choosing, TUNING_SEED)) if choosing else USUAL_RATE
    right = of(chosen, showing, seed)
    promised = with_epsilon(bundle, epsilon, chosen).description.sample_privacy
    row: dict[str, object] = {"epsilon": None, "learning_rate": chosen, "right": right}
    if promised is not None:
        steps = ROUNDS * bundle.description.training.steps
        row |= {
            "epsilon": epsilon,
            "noise_multiplier": round(promised.noise_multiplier, 3),
            "tight_epsilon": tight_epsilon(promised.mechanism, steps, promised.delta),
        }
    print(json.dumps(row), flush=True)
    return row


def main() -> None:
    """Print a row for each epsilon as it is found, and all of them as one JSON object at the end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--epsilons", type=float, nargs="*", default=[1.0, 2.0, 4.0, 8.0, NONE])
    parser.add_argument("--choose", action="store_true")
    options = parser.parse_args()
    shown = mnist_split(options.data)
    pooled = shown.pooled
    choosing = Split(pooled.take(slice(CHOOSING, None)), pooled.take(slice(0, CHOOSING))) if options.choose else None
    with tempfile.TemporaryDirectory() as folder:
        export_bundle(RECIPE, Path(folder))
        rows = [measured(Path(folder), epsilon, shown, options.seed, choosing) for epsilon in options.epsilons]
    settings = {"devices": CLIENTS, "rounds_of_a_device": ROUNDS, "dirichlet": CONCENTRATION, "delta": 1e-5}
    print(json.dumps({**settings, "rows": rows}))


if __name__ == "__main__":
    main()
