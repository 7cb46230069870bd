"""Occupancy of a room, learned as a device would: a week's readings in time order, tested on days it never saw.

`python -m benchmarks.occupancy --data-dir DIR` prints one JSON object as its last line: the accuracy on datatest.txt of
one device's model, and that of scikit-learn's logistic regression, which gets all windows of datatraining.txt at once.
DIR holds the two files of the UCI Occupancy Detection data set (Candanedo and Feldheim 2016, CC BY 4.0).
"""

import argparse
import csv
import json
import tempfile
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from benchmarks.one_device import Device, accuracy
from models.occupancy.samples import SlidingWindow
from workbench.recipe_folder import find_recipe

TRAINING_FILE, TEST_FILE = "datatraining.txt", "datatest.txt"
DATA = Path(__file__).parents[2] / "shared" / "data" / "occupancy"
QUANTITIES = ("Temperature", "Humidity", "Light", "CO2")
TRIGGER = 240
"""A round every four hours."""


@dataclass(frozen=True, slots=True)
class Windows:
    """`inputs` float32 [N, 40] and `labels` int64 [N], in time order."""

    inputs: NDArray[np.float32]
    labels: NDArray[np.int64]


def read_windows(path: Path) -> Windows:
    """The samples that a device would have made of the readings in a file, in time order.

    Raises:
        OSError: it can't be read.
        KeyError: a column is missing.
    """
    window = SlidingWindow()
    inputs = []
    labels = []
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            reading = [float(row[quantity]) for quantity in QUANTITIES]
            sample = window.push(datetime.fromisoformat(row["date"]).timestamp(), reading)
            if sample is not None:
                inputs.append(sample)
                labels.append(int(row["Occupancy"]))
    return Windows(np.array(inputs, np.float32), np.array(labels, np.int64))


def measure(data: Path) -> dict[str, float | int]:
    """Train on one file, test on the other, both ways."""
    training, test = read_windows(data / TRAINING_FILE), read_windows(data / TEST_FILE)
    bundle = find_recipe("occupancy") / "bundle"
    with tempfile.TemporaryDirectory() as folder:
        device = Device(bundle, Path(folder), new_samples=TRIGGER)
        weights = device.live(list(training.inputs), training.labels.tolist())
    regression = LogisticRegression(max_iter=2000).fit(training.inputs, training.labels)
    shape = (-1, *device.description.input.shape)
    return {
        "accuracy": accuracy(bundle, weights, test.inputs.reshape(shape), test.labels),
        "logistic_regression_accuracy": float(regression.score(test.inputs, test.labels)),
        "always_empty_accuracy": float((test.labels == 0).mean()),
        "rounds": len(training.labels) // TRIGGER,
        "training_windows": len(training.labels),
        "test_windows": len(test.labels),
    }


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", type=Path, default=DATA)
    print(json.dumps(measure(parser.parse_args().data_dir)))


if __name__ == "__main__":
    main()
