"""The letters A to J as pictures, drawn by code: strokes of changing place, slant, size and width."""

from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bundle_runtime.samples import Samples

NAMES: Final = "ABCDEFGHIJ"
SIDE: Final = 28
LARGEST_TURN, LARGEST_SLANT = 0.13, 0.18
"""In radians, and as a share of the height."""
LETTER_HALF: Final = 8.5
"""Pixels from the middle of a letter to its edge, before it is made larger or smaller by up to `SIZE_SPREAD`."""
SIZE_SPREAD: Final = 0.15
LARGEST_SHIFT: Final = 1.5
"""Pixels, in each direction."""
THINNEST, THICKEST = 1.0, 1.9
"""Half the width of a stroke, in pixels."""

Floats = NDArray[np.float64]
Points = tuple[tuple[float, float], ...]


def _arc(across: float, down: float, radii: tuple[float, float], start: float, end: float) -> Points:
    """Points of an ellipse around (`across`, `down`), between two angles in degrees clockwise from the right."""
    angles = np.radians(np.linspace(start, end, 9))
    return tuple(zip(across + radii[0] * np.cos(angles), down + radii[1] * np.sin(angles), strict=True))


STROKES: Final[dict[str, tuple[Points, ...]]] = {
    "A": (((-0.8, 1), (0, -1), (0.8, 1)), ((-0.5, 0.3), (0.5, 0.3))),
    "B": (
        ((-0.6, -1), (-0.6, 1)),
        ((-0.6, -1), (0, -1), *_arc(0, -0.5, (0.6, 0.5), -90, 90), (-0.6, 0)),
        ((0, 0), *_arc(0, 0.5, (0.7, 0.5), -90, 90), (-0.6, 1)),
    ),
    "C": (_arc(0.1, 0, (0.8, 1), -50, -310),),
    "D": (((-0.6, -1), (-0.6, 1)), ((-0.6, -1), *_arc(-0.2, 0, (0.9, 1), -90, 90), (-0.6, 1))),
    "E": (((0.6, -1), (-0.6, -1), (-0.6, 1), (0.6, 1)), ((-0.6, 0), (0.4, 0))),
    "F": (((0.6, -1), (-0.6, -1), (-0.6, 1)), ((-0.6, 0), (0.4, 0))),
    "G": ((*_arc(0.1, 0, (0.8, 1), -50, -330), (0.8, 0.1), (0.2, 0.1)),),
    "H": (((-0.7, -1), (-0.7, 1)), ((0.7, -1), (0.7, 1)), ((-0.7, 0), (0.7, 0))),
    "I": (((0, -1), (0, 1)), ((-0.5, -1), (0.5, -1)), ((-0.5, 1), (0.5, 1))),
    "J": (((0.5, -1), (0.5, 0.4), *_arc(-0.1, 0.4, (0.6, 0.6), 0, 180)), ((0, -1), (0.8, -1))),
}
"""Lines of points within -1 to 1, across and down."""

_ROWS, _COLUMNS = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
_PIXELS: Final = np.stack([_COLUMNS, _ROWS], axis=-1).reshape(-1, 2)


def drawn_letters(count: int, generator: np.random.Generator) -> Samples:
    """So many letters in turn, dark on bright: pictures float32 [N, 784], 0 is black and 1 white; classes int64 [N]."""
    classes = np.arange(count) % len(NAMES)
    pictures = np.array([1 - _ink(NAMES[letter], generator) for letter in classes], np.float32)
    return Samples(pictures.reshape(count, SIDE * SIDE), classes.astype(np.int64))


def _ink(letter: str, generator: np.random.Generator) -> Floats:
    """How much of each pixel f64[784] the strokes cover, from 0 to 1."""
    turn, slant = generator.uniform(-1, 1, 2) * (LARGEST_TURN, LARGEST_SLANT)
    size = LETTER_HALF * (1 + generator.uniform(-SIZE_SPREAD, SIZE_SPREAD))
    shape = size * np.array([[np.cos(turn), np.sin(turn)], [slant - np.sin(turn), np.cos(turn)]])
    middle = generator.uniform(-LARGEST_SHIFT, LARGEST_SHIFT, 2)
    lines = [np.array(stroke) @ shape + middle for stroke in STROKES[letter]]
    pieces = [piece for line in lines for piece in pairwise(line)]
    distance = np.min([_distances(start, end) for start, end in pieces], axis=0)
    return np.array(np.clip(generator.uniform(THINNEST, THICKEST) + 0.5 - distance, 0, 1))


def _distances(start: Floats, end: Floats) -> Floats:
    """From each pixel f64[784] to the line between two points."""
    along, to_pixel = end - start, _PIXELS - start
    share = np.clip(to_pixel @ along / max(float(along @ along), 1e-9), 0, 1)
    return np.array(np.linalg.norm(to_pixel - share[:, None] * along, axis=1))
