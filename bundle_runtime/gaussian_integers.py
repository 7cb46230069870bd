"""Gaussian noise as whole numbers, of bytes that nobody can predict: for devices and for the coordinator."""

import math
from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

Draw = Callable[[int], bytes]
"""So many random bytes that nobody can predict."""

WORD: Final = np.dtype("<u8")
WORD_BITS: Final = 64


def gaussian_integers(count: int, deviation: float, draw: Draw) -> NDArray[np.float64]:
    """So many whole numbers, each a Gaussian of this standard deviation rounded to the nearest; float64 [count].

    Box & Muller 1958. A rounded one has none of the low bits by which Mironov 2012 ("On significance of the least
    significant bits for differential privacy") tells from which sum a noised float can have come; so `deviation` must
    be far above 1 and far below 2**53. The radius is drawn from 128 bits: it ends 13.3 deviations out, where a sample
    that moves the sum by three more would still have to be met by a chance of 1e-23.
    """
    whole, fraction, turn = words(3 * ((count + 1) // 2), draw).reshape(3, -1)
    uniform = (whole + (fraction + 1.0) * 2.0**-WORD_BITS) * 2.0**-WORD_BITS
    radius = np.sqrt(-2 * np.log(uniform))
    angle = (2 * math.pi * 2.0**-WORD_BITS) * turn
    values = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:count]
    return np.rint(values * deviation)


def words(count: int, draw: Draw) -> NDArray[np.uint64]:
    """So many drawn words, uint64 [count]."""
    return np.frombuffer(draw(WORD.itemsize * count), WORD)
