"""The zoo's tables: columns of unlike units as a user has them, neither scaled nor filled in."""

import csv
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_breast_cancer, load_diabetes, load_wine

from benchmarks.occupancy import TEST_FILE, TRAINING_FILE, read_windows
from bundle_runtime.samples import Samples

MISSING = -200.0
"""What the air quality station writes where an instrument gave no reading."""
AIR_QUALITY_FILE = Path("air_quality") / "AirQualityUCI.csv"
AIR_QUALITY_TARGET = "CO(GT)"
AIR_QUALITY_INPUTS = (
    "PT08.S1(CO)",
    "PT08.S2(NMHC)",
    "PT08.S3(NOx)",
    "PT08.S4(NO2)",
    "PT08.S5(O3)",
    "T",
    "RH",
    "AH",
    "NOx(GT)",
    "NO2(GT)",
)


def wine(_: Path) -> Samples:
    """178 wines of three growers: 13 quantities, from 0.1 to 1,680."""
    return _classes(load_wine)


def breast_cancer(_: Path) -> Samples:
    """569 tumours, malignant or benign: 30 measurements, from 0 to 4,254."""
    return _classes(load_breast_cancer)


def diabetes(_: Path) -> Samples:
    """442 patients: 10 measurements as they were taken, and how far the disease had come a year later, 25 to 346."""
    source = load_diabetes(scaled=False)
    return Samples(source.data.astype(np.float32), source.target.astype(np.float32)[:, np.newaxis])


def air_quality(data: Path) -> Samples:
    """The hours whose carbon monoxide is known; a tenth of them lacks one of the inputs or more, which are NaN."""
    return readings(data, AIR_QUALITY_TARGET, AIR_QUALITY_INPUTS)


def readings(data: Path, target: str, inputs_named: Sequence[str]) -> Samples:
    """The station's hours whose `target` is known; missing inputs are NaN."""
    with (data / AIR_QUALITY_FILE).open(newline="", encoding="latin-1") as file:
        rows = [row for row in csv.DictReader(file, delimiter=";") if row["Time"]]
    inputs = np.array([[_number(row[name]) for name in inputs_named] for row in rows], np.float32)
    targets = np.array([[_number(row[target])] for row in rows], np.float32)
    known = targets[:, 0] != MISSING
    return Samples(np.where(inputs == MISSING, np.float32("nan"), inputs)[known], targets[known])


def occupancy(data: Path) -> tuple[Samples, Samples]:
    """To train on and to test on: windows of two different weeks in one office."""
    training, test = (read_windows(data / "occupancy" / file) for file in (TRAINING_FILE, TEST_FILE))
    return _flat(training), _flat(test)


def _flat(windows: Samples) -> Samples:
    return replace(windows, inputs=windows.inputs.reshape(len(windows), -1))


def _number(text: str) -> float:
    return float(text.replace(",", "."))


def _classes(load: Callable[[], Any]) -> Samples:
    source = load()
    return Samples(source.data.astype(np.float32), source.target.astype(np.int64))
