"""Solved heads on pictures, which chose none of the defaults: every solver, behind EfficientNet-Lite0 and without.

`python -m benchmarks.image_heads --data-dir FOLDER`, after `make image-features`, prints one JSON object as
its last line. For `fashion` (2,000 pictures) and `notmnist` (3,000), a fifth of which are the test, 30 devices; with
three classes each, or by chance; accuracy of the head that the shipped solvers make of their statistics, as these
arrive, and the bytes of the largest. `features` are those of `models/image_features`, 1,024 random ones of the pixels,
or the pixels.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.pictures_and_words import (
    CLASSES,
    DIVISIONS,
    Featured,
    behind_image_features,
    random_features,
    read_pictures,
)
from broker_coordinator.aggregation.solved_heads import most_counted, pooled, solve
from bundle_runtime.bundle_folder import load_bundle
from bundle_runtime.runner import BundleRunner
from fleet_protocol.codec import ClassStatistics, decode_class_statistics
from fleet_protocol.limits import MAX_SAMPLES_PER_UPDATE
from fleet_protocol.solved_head import SolvedHead
from workbench.export.bundle_writer import export_bundle
from workbench.recipe_folder import find_recipe

DEVICES = 30
RANDOM_FEATURES = 1_024
HEADS = [
    SolvedHead(solver="means", precision="float32"),
    SolvedHead(solver="means", precision="float16"),
    SolvedHead(solver="means", precision="int8"),
    SolvedHead(solver="gaussian", precision="float16"),
    SolvedHead(solver="ridge", precision="float32"),
    SolvedHead(solver="ridge", precision="float16"),
]
ByDevice = dict[str, ClassStatistics]


def arrived(data: Featured, parts: list[NDArray[np.int64]], head: SolvedHead) -> tuple[ByDevice, int]:
    """Every device's statistics as the coordinator reads them, and the bytes of the largest, unsigned."""
    size = data.features.shape[1]
    found, largest = {}, 0
    for number, part in enumerate(parts):
        sent = ClassStatistics.of(data.features[part], data.labels[part], CLASSES, head.solver)
        packed = sent.encode(head.precision, head.solver)
        largest = max(largest, len(packed))
        found[f"d{number:04}"] = decode_class_statistics(packed, CLASSES, size, head.precision, head.solver)
    return found, largest


def accuracy(data: Featured, statistics: ByDevice, head: SolvedHead) -> float:
    """Of the head on the test."""
    solved = solve(pooled(statistics, head.solver, most_counted(statistics, head, MAX_SAMPLES_PER_UPDATE)), head)
    scores = data.test_features @ solved.weight.T + solved.bias
    return float((scores.argmax(axis=1) == data.test_labels).mean())


def measured(name: str, features: str, data: Featured) -> list[dict[str, object]]:
    """Every head on one data set."""
    rows: list[dict[str, object]] = []
    for skew in ("iid", "three_classes"):
        parts = DIVISIONS[skew](data.labels, DEVICES, np.random.default_rng(0))
        for head in HEADS:
            statistics, largest = arrived(data, parts, head)
            found = round(accuracy(data, statistics, head), 4)
            rows.append(
                {
                    "data": name,
                    "features": features,
                    "skew": skew,
                    "solver": head.solver,
                    "precision": head.precision,
                    "accuracy": found,
                    "statistics_bytes": largest,
                }
            )
            print(json.dumps(rows[-1]), flush=True)
    return rows


def main() -> None:
    """Export, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True, help="folder with fashion_mnist_2k and notmnist")
    arguments = parser.parse_args()
    started = time.monotonic()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        export_bundle(find_recipe("image_features"), Path(folder), tell=lambda _: None)
        bundle = load_bundle(Path(folder))
        runner = BundleRunner(bundle.description, bundle.files)
        for name in ("fashion", "notmnist"):
            pictures, labels = read_pictures(arguments.data_dir, name)
            pixels = (pictures.reshape(len(pictures), -1) / np.float32(255)).astype(np.float32)
            for features, table in (
                ("image_features", behind_image_features(pictures, runner)),
                ("random", random_features(pixels, RANDOM_FEATURES)),
                ("pixels", pixels),
            ):
                rows += measured(name, features, Featured.every_fifth_tests(table, labels))
    print(json.dumps({"heads": rows, "wall_seconds": round(time.monotonic() - started)}))


if __name__ == "__main__":
    main()
