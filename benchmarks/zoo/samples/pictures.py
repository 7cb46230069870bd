"""The zoo's pictures: brightness in [0, 1] and a class each."""

from pathlib import Path

import numpy as np

from benchmarks.mnist import read_mnist
from bundle_runtime.samples import Samples
from workbench.data.digits import read_digits

ARRAY = "arr_0"
WHITE = np.float32(255)


def digits(_: Path) -> Samples:
    """scikit-learn's, 8x8 pixels as f32[N, 64]."""
    return read_digits()


def mnist20k(data: Path) -> Samples:
    """20,000 digits of 28x28 pixels, as f32[N, 1, 28, 28]."""
    folder = data / "mnist20k"
    return _brightness(folder / "x_train.npz", folder / "y_train.npz")


def fashion(data: Path) -> Samples:
    """2,000 pieces of clothing, as f32[N, 1, 28, 28]."""
    folder = data / "fashion_mnist_2k"
    return _brightness(folder / "x_test.npz", folder / "y_test.npz")


def notmnist(data: Path) -> Samples:
    """10,000 letters A to J, as f32[N, 784]; the files are in MNIST's format."""
    letters = read_mnist(data / "notmnist")
    return Samples(letters.images.reshape(len(letters.labels), -1), letters.labels)


def _brightness(images: Path, labels: Path) -> Samples:
    pixels = np.load(images)[ARRAY].astype(np.float32)[:, np.newaxis] / WHITE
    return Samples(pixels, np.load(labels)[ARRAY].astype(np.int64))
