"""Labelled features of the data sets that solved heads are measured on, and how the benchmark's devices have them."""

import gzip
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.spoken_digits import read_spoken_digits
from bundle_runtime.runner import BundleRunner
from models.image_features.samples import inputs_from_picture

CLASSES = 10
MOST_PICTURES = 3_000
BATCH = 50
IDX_HEADER = 16
LABEL_HEADER = 8


@dataclass(frozen=True, slots=True)
class Featured:
    """`features` f32[N, D] and `labels` int64[N] of training, and those of the test."""

    features: NDArray[np.float32]
    labels: NDArray[np.int64]
    test_features: NDArray[np.float32]
    test_labels: NDArray[np.int64]

    @classmethod
    def every_fifth_tests(cls, features: NDArray[np.float32], labels: NDArray[np.int64]) -> "Featured":
        """Where nobody says which are the test set."""
        is_test = np.arange(len(labels)) % 5 == 0
        return cls(features[~is_test], labels[~is_test], features[is_test], labels[is_test])


def read_pictures(data: Path, name: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """`fashion` or `notmnist`: grey pictures uint8[N, 28, 28], at most `MOST_PICTURES`, and their labels."""
    if name == "fashion":
        with np.load(data / "fashion_mnist_2k/x_test.npz") as x, np.load(data / "fashion_mnist_2k/y_test.npz") as y:
            return x["arr_0"][:MOST_PICTURES], y["arr_0"][:MOST_PICTURES].astype(np.int64)
    folder = data / "notmnist"
    with (
        gzip.open(folder / "t10k-images-idx3-ubyte.gz") as images,
        gzip.open(folder / "t10k-labels-idx1-ubyte.gz") as y,
    ):
        pictures = np.frombuffer(images.read()[IDX_HEADER:], np.uint8).reshape(-1, 28, 28)
        return pictures[:MOST_PICTURES], np.frombuffer(y.read()[LABEL_HEADER:], np.uint8)[:MOST_PICTURES].astype(
            np.int64
        )


def behind_image_features(pictures: NDArray[np.uint8], runner: BundleRunner) -> NDArray[np.float32]:
    """f32[N, 1280]: each picture resized as `models/image_features` has it."""
    rows = [
        runner.features(np.stack([inputs_from_picture(picture) for picture in pictures[start : start + BATCH]]))
        for start in range(0, len(pictures), BATCH)
    ]
    return np.concatenate(rows)


def random_features(pixels: NDArray[np.float32], count: int, seed: int = 0) -> NDArray[np.float32]:
    """tanh of so many random projections: a poor man's backbone."""
    generator = np.random.default_rng(seed)
    weight = generator.normal(0, 2 / np.sqrt(pixels.shape[1]), (pixels.shape[1], count))
    return np.tanh((2 * pixels - 1) @ weight).astype(np.float32)


def spoken(data: Path, runner: BundleRunner) -> Featured:
    """The spoken digits behind `models/speech_commands`, with their usual test set."""
    read = read_spoken_digits(data, runner)
    rows, test = read.training, read.test
    return Featured(read.features[rows], read.digits[rows], test.inputs, test.labels.astype(np.int64))


Divide = Callable[[NDArray[np.int64], int, np.random.Generator], list[NDArray[np.int64]]]


def evenly(labels: NDArray[np.int64], devices: int, generator: np.random.Generator) -> list[NDArray[np.int64]]:
    """Rows by chance."""
    return list(np.array_split(generator.permutation(len(labels)), devices))


def few_classes(labels: NDArray[np.int64], devices: int, generator: np.random.Generator) -> list[NDArray[np.int64]]:
    """Three classes for each device, among which the samples of a class go round."""
    parts: list[list[int]] = [[] for _ in range(devices)]
    for label in range(CLASSES):
        own = [device for device in range(devices) if (label - device) % CLASSES < 3]
        for place, row in enumerate(generator.permutation(np.flatnonzero(labels == label))):
            parts[own[place % len(own)]].append(int(row))
    return [np.array(part) for part in parts if part]


def unequally(labels: NDArray[np.int64], devices: int, generator: np.random.Generator) -> list[NDArray[np.int64]]:
    """Of all classes, in lognormal numbers with a deviation of e^1.2: the largest of 30 devices has some ten times the
    median.
    """
    shares = generator.lognormal(0, 1.2, devices)
    ends = np.round(np.cumsum(shares / shares.sum()) * len(labels)).astype(int)[:-1]
    return [part for part in np.split(generator.permutation(len(labels)), ends) if len(part)]


DIVISIONS: dict[str, Divide] = {"iid": evenly, "three_classes": few_classes, "unequal_numbers": unequally}
