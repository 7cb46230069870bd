"""What one device that lies about its number of samples does to a solved head, and what the bound costs honest fleets.

`python -m benchmarks.claimed_samples --data-dir FOLDER`, after `make speech-embedding`, prints one JSON object as its
last line. 30 devices, on spoken digits (which chose the bound) and on fashion behind 256 random features (which shows
it): for each
`most_times_median`, 0 being no bound, the accuracy of every solver where all are honest, with the samples divided by
chance, with three classes each, and in very unequal numbers; and where one more has labels turned by one and
claims a million samples, evenly over its classes.
"""

import argparse
import json
import tempfile
from pathlib import Path

import msgspec
import numpy as np

from benchmarks.image_heads import DEVICES, ByDevice, accuracy, arrived
from benchmarks.pictures_and_words import CLASSES, DIVISIONS, Featured, random_features, read_pictures, spoken
from bundle_runtime.bundle_folder import load_bundle
from bundle_runtime.runner import BundleRunner
from fleet_protocol.codec import ClassStatistics
from fleet_protocol.limits import MAX_SAMPLES_PER_UPDATE
from fleet_protocol.solved_head import SolvedHead, Solver
from workbench.export.bundle_writer import export_bundle
from workbench.recipe_folder import find_recipe

FACTORS = (0.0, 2.0, 3.0, 5.0, 10.0, 30.0)
SOLVERS: tuple[Solver, ...] = ("means", "gaussian", "ridge")
SEEDS = 3
RANDOM_FEATURES = 256


def with_liar(statistics: ByDevice, data: Featured, solver: Solver, seed: int) -> ByDevice:
    """One more device: a thirtieth of the samples, each taken for the next class, and a million claimed."""
    rows = np.random.default_rng(seed + 100).permutation(len(data.labels))[: len(data.labels) // DEVICES]
    lie = ClassStatistics.of(data.features[rows], (data.labels[rows] + 1) % CLASSES, CLASSES, solver)
    claimed = lie.counts * (MAX_SAMPLES_PER_UPDATE // lie.samples)
    return statistics | {"liar": ClassStatistics(claimed, lie.means, lie.spread)}


def measured(name: str, data: Featured) -> list[dict[str, object]]:
    """The mean accuracy over seeds, for each way to divide and each bound."""
    rows: list[dict[str, object]] = []
    for skew, divide in DIVISIONS.items():
        for solver in SOLVERS:
            plan = SolvedHead(solver=solver)
            fleets = [
                arrived(data, divide(data.labels, DEVICES, np.random.default_rng(seed)), plan)[0]
                for seed in range(SEEDS)
            ]
            for factor in FACTORS:
                bounded = msgspec.structs.replace(plan, most_times_median=factor)
                honest = [accuracy(data, fleet, bounded) for fleet in fleets]
                lied = [
                    accuracy(data, with_liar(fleet, data, solver, seed), bounded) for seed, fleet in enumerate(fleets)
                ]
                means = {"honest": round(float(np.mean(honest)), 4), "one_liar": round(float(np.mean(lied)), 4)}
                rows.append({"data": name, "skew": skew, "solver": solver, "most_times_median": factor, **means})
                print(json.dumps(rows[-1]), flush=True)
    return rows


def _runner(recipe: str) -> BundleRunner:
    with tempfile.TemporaryDirectory() as folder:
        export_bundle(find_recipe(recipe), Path(folder), tell=lambda _: None)
        bundle = load_bundle(Path(folder))
    return BundleRunner(bundle.description, bundle.files)


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True, help="folder with spoken_digits and fashion_mnist_2k")
    data = parser.parse_args().data_dir
    pictures, labels = read_pictures(data, "fashion")
    pixels = (pictures.reshape(len(pictures), -1) / np.float32(255)).astype(np.float32)
    fashion = Featured.every_fifth_tests(random_features(pixels, RANDOM_FEATURES), labels)
    rows = measured("spoken_digits", spoken(data, _runner("speech_commands"))) + measured("fashion", fashion)
    print(json.dumps({"accuracy": rows}))


if __name__ == "__main__":
    main()
