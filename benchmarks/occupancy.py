"""Occupancy of a room, learned as a device would: a week's readings in time order, tested on days it never saw.

`python -m benchmarks.occupancy --data-dir DIR` prints one JSON object as its last line: the accuracy on datatest.txt of
one device's model, and that of scikit-learn's logistic regression, which gets all windows of datatraining.txt at once.
DIR holds the two files of the UCI Occupancy Detection data set (Candanedo and Feldheim 2016, CC BY 4.0).
"""

import argparse
import csv
import json
import tempfile
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression

from benchmarks.one_device import Device, accuracy
from bundle_runtime.samples import Samples
from fleet_protocol.bundle import parse_description
from fleet_protocol.bundle_files import DESCRIPTION_FILE
from workbench.data.named_readings import prepare_rows
from workbench.recipe_folder import find_recipe

TRAINING_FILE, TEST_FILE = "datatraining.txt", "datatest.txt"
DATA = Path(__file__).parents[2] / "shared" / "data" / "occupancy"
COLUMNS = {
    "temperature": "Temperature",
    "humidity": "Humidity",
    "light": "Light",
    "carbon_dioxide": "CO2",
    "occupied": "Occupancy",
}
"""Of the readings' fields."""
TRIGGER = 240
"""A round every four hours."""


def read_readings(path: Path) -> list[dict[str, float | str]]:
    """The readings in a file by the names of the task's fields, with `time` and their label, in time order.

    Raises:
        OSError: it can't be read.
        KeyError: a column is missing.
    """
    with path.open(newline="") as file:
        return [
            {"time": row["date"]} | {name: float(row[column]) for name, column in COLUMNS.items()}
            for row in csv.DictReader(file)
        ]


def read_windows(path: Path) -> Samples:
    """The samples that a device makes of the readings in a file: inputs float32 [N, 10, 4], labels int64 [N].

    Raises:
        OSError: it can't be read.
        KeyError: a column is missing.
    """
    bundle = find_recipe("occupancy") / "bundle"
    task = parse_description((bundle / DESCRIPTION_FILE).read_bytes())
    return prepare_rows(read_readings(path), task, name=str(path)).samples


def measure(data: Path) -> dict[str, float | int]:
    """Train on one file, test on the other, both ways."""
    training, test = read_windows(data / TRAINING_FILE), read_windows(data / TEST_FILE)
    bundle = find_recipe("occupancy") / "bundle"
    with tempfile.TemporaryDirectory() as folder:
        device = Device(bundle, Path(folder), new_samples=TRIGGER)
        weights = device.live(list(training.inputs), training.labels.tolist())
    flat = training.inputs.reshape(len(training), -1)
    regression = LogisticRegression(max_iter=2000).fit(flat, training.labels)
    return {
        "accuracy": accuracy(bundle, weights, test.inputs, test.labels.astype(np.int64)),
        "logistic_regression_accuracy": float(regression.score(test.inputs.reshape(len(test), -1), test.labels)),
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
