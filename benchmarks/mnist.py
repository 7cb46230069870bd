"""The 10,000 MNIST test images (LeCun, Cortes, Burges; CC BY-SA 3.0), read from the IDX files in a folder."""

import gzip
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

IMAGES_FILE, LABELS_FILE = "t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"
IMAGES_HEADER_BYTES, LABELS_HEADER_BYTES = 16, 8
PIXELS = 28


@dataclass(frozen=True, slots=True)
class Digits:
    """`images` float32 [N, 1, 28, 28] in [0, 1]; `labels` int64 [N]."""

    images: NDArray[np.float32]
    labels: NDArray[np.int64]


def read_mnist(folder: Path) -> Digits:
    """Both files of `folder`, or of the folder `mnist` in it.

    Raises:
        OSError: one is missing.
    """
    folder = folder / "mnist" if (folder / "mnist").is_dir() else folder
    images = gzip.decompress((folder / IMAGES_FILE).read_bytes())
    labels = gzip.decompress((folder / LABELS_FILE).read_bytes())
    pixels = np.frombuffer(images, np.uint8, offset=IMAGES_HEADER_BYTES).reshape(-1, 1, PIXELS, PIXELS)
    classes = np.frombuffer(labels, np.uint8, offset=LABELS_HEADER_BYTES)
    return Digits(pixels.astype(np.float32) / np.float32(255), classes.astype(np.int64))
