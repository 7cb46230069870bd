"""The zoo's tasks: where each one's samples come from, and how they are split into those to train and to test on."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks.zoo.samples import others, pictures, speech, tables
from bundle_runtime.samples import Samples

DATA = Path(__file__).parents[3] / "shared" / "data"
RECIPES = Path(__file__).parent / "recipes"
SPLIT_STREAM = 4
TESTED_SHARE = 0.2
MOST_TRAINED, MOST_TESTED = 8_000, 2_000
"""Samples: so few that a device's share comes in within the days that are simulated, and a score takes little time."""


@dataclass(frozen=True, slots=True)
class Task:
    """`read` gives all samples, or those to train and those to test on where their source says which."""

    read: Callable[[Path], Samples | tuple[Samples, Samples]]


TASKS: Final[Mapping[str, Task]] = {
    "digits": Task(pictures.digits),
    "mnist20k": Task(pictures.mnist20k),
    "notmnist": Task(pictures.notmnist),
    "fashion": Task(pictures.fashion),
    "spoken_digits": Task(speech.spoken_digits),
    "occupancy": Task(tables.occupancy),
    "air_quality": Task(tables.air_quality),
    "wine": Task(tables.wine),
    "breast_cancer": Task(tables.breast_cancer),
    "diabetes": Task(tables.diabetes),
}
KEPT_ASIDE: Final[Mapping[str, Task]] = {
    "iris": Task(others.iris),
    "moons": Task(others.moons),
    "unlike_units": Task(others.unlike_units),
    "friedman": Task(others.friedman),
    "even_digits": Task(others.even_digits),
    "nitrogen_dioxide": Task(others.nitrogen_dioxide),
    "speakers": Task(others.speakers),
}
"""No part of the zoo: run where `--tasks` names them."""
EVERY_TASK: Final[Mapping[str, Task]] = {**TASKS, **KEPT_ASIDE}
SHORT_TASKS = ("digits", "wine", "diabetes")
"""Those of the short form: little data that comes with scikit-learn, classes and a number."""


@dataclass(frozen=True, slots=True)
class Split:
    """No device sees what is in `test`."""

    train: Samples
    test: Samples


def read_split(name: str, seed: int, data: Path) -> Split:
    """A task's samples, split by `seed` where their source does not say how.

    Raises:
        OSError: the files are not in `data`.
    """
    samples = EVERY_TASK[name].read(data)
    if isinstance(samples, tuple):
        train, test = samples
        return Split(train, test)
    order = np.random.default_rng((seed, SPLIT_STREAM)).permutation(len(samples))
    tested = min(round(TESTED_SHARE * len(order)), MOST_TESTED)
    return Split(samples.take(order[tested : tested + MOST_TRAINED]), samples.take(order[:tested]))
