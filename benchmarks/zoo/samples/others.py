"""Data that chose nothing: what the zoo's one default is shown on, besides the tasks that it was chosen on."""

from pathlib import Path

import numpy as np
from sklearn.datasets import load_iris, make_classification, make_friedman1, make_moons

from benchmarks.zoo.samples.pictures import digits
from benchmarks.zoo.samples.speech import recordings
from benchmarks.zoo.samples.tables import AIR_QUALITY_INPUTS, readings
from bundle_runtime.samples import Samples

DRAWN = 4_000
"""Samples of each that is made up."""
SEED = 0
"""Of what is made up. What is trained and tested on is drawn by the zoo's seeds."""


def iris(_: Path) -> Samples:
    """150 flowers of three kinds: four lengths in cm."""
    source = load_iris()
    return Samples(source.data.astype(np.float32), source.target.astype(np.int64))


def moons(_: Path) -> Samples:
    """Two half circles that reach into each other: two coordinates."""
    inputs, labels = make_moons(DRAWN, noise=0.2, random_state=SEED)
    return Samples(inputs.astype(np.float32), labels.astype(np.int64))


def unlike_units(_: Path) -> Samples:
    """Four classes in eight clusters: 20 columns in units from a thousandth to a thousand; 3 % of labels are wrong."""
    inputs, labels = make_classification(
        DRAWN, n_informative=8, n_classes=4, flip_y=0.03, class_sep=1.5, random_state=SEED
    )
    units = np.logspace(-3, 3, inputs.shape[1])
    return Samples((inputs * units).astype(np.float32), labels.astype(np.int64))


def friedman(_: Path) -> Samples:
    """Friedman's first problem (1991): ten columns, of which five count; a target around 14,000."""
    inputs, targets = make_friedman1(DRAWN, noise=1.0, random_state=SEED)
    return Samples(inputs.astype(np.float32), (1_000 * targets).astype(np.float32)[:, np.newaxis])


def even_digits(data: Path) -> Samples:
    """Whether a digit of 8x8 pixels is even, from brightness as it was scanned, 0 to 16."""
    source = digits(data)
    return Samples(16 * source.inputs, 1 - source.labels % 2)


def nitrogen_dioxide(data: Path) -> Samples:
    """The hours whose nitrogen dioxide is known, from the nine other columns of the air quality station."""
    return readings(data, "NO2(GT)", [name for name in AIR_QUALITY_INPUTS if name != "NO2(GT)"])


def speakers(data: Path) -> tuple[Samples, Samples]:
    """Which of six people says a digit: f32[N, 1, 20, 24] in dB."""
    return recordings(data, "speakers")
