"""From a picture to a sample. Runs in the program that holds the camera."""

import numpy as np
from numpy.typing import NDArray

SIDE = 128
"""Pixels. The network was trained on 224, and takes any: fewer cost less time and tell less."""


def inputs_from_picture(picture: NDArray[np.uint8]) -> NDArray[np.float32]:
    """`inputs` f32[3, 128, 128] from 0 to 1 of a picture uint8[height, width, 3], or [height, width] where it is grey:
    each side resized by itself, linearly between the two nearest pixels.

    Raises:
        ValueError: it is no such picture.
    """
    if picture.ndim == 2:
        picture = np.repeat(picture[:, :, None], 3, axis=2)
    if picture.ndim != 3 or picture.shape[2] != 3 or not picture.size:
        raise ValueError(f"a picture is [height, width, 3] or [height, width], not {list(picture.shape)}")
    rows = _resized(picture.astype(np.float32) / 255, axis=0)
    return _resized(rows, axis=1).transpose(2, 0, 1).clip(0, 1).astype(np.float32)


def _resized(picture: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    """Along one axis to `SIDE`; the middles of the outermost pixels stay where they are on the picture."""
    size = picture.shape[axis]
    places = ((np.arange(SIDE, dtype=np.float32) + 0.5) * size / SIDE - 0.5).clip(0, size - 1)
    below = places.astype(np.int64)
    above = np.minimum(below + 1, size - 1)
    shape = [1] * picture.ndim
    shape[axis] = SIDE
    share = (places - below).astype(np.float32).reshape(shape)
    return picture.take(below, axis) * (1 - share) + picture.take(above, axis) * share
