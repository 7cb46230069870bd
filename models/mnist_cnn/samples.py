"""From a camera's grey picture to a sample. Runs in the program that reads the camera, without numpy."""

from collections.abc import Sequence

SIDE = 28
WHITE = 255


def inputs_from_grey(pixels: Sequence[int]) -> list[float]:
    """`inputs` of a sample from 28x28 grey values (0 to 255, row by row, dark paper and bright ink as in MNIST).

    For ink on white paper give `WHITE - pixel`.

    Raises:
        ValueError: not 784 values.
    """
    if len(pixels) != SIDE * SIDE:
        raise ValueError(f"{len(pixels)} pixels; a picture has {SIDE}x{SIDE}: scale and crop it first")
    return [pixel / WHITE for pixel in pixels]
