"""The zoo's spoken digits: log-mel energies, as numpy and a device's sound card give them."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bundle_runtime.samples import Samples

RATE = 8_000
"""Hz."""
FRAME, HOP = 256, 200
"""Samples: 32 ms, every 25 ms."""
FRAMES = 24
"""0.6 s: most recordings are shorter and end in silence, the others are cut."""
BANDS = 20
LOWEST = 100.0
"""Hz: below there is hum."""
QUIETEST = 1.0
"""Added to a band's energy, in squared steps of the 16-bit samples."""
TEST_TAKES = 5
"""The data set's usual split: a speaker's first takes of each digit are to test on."""


def spoken_digits(data: Path) -> tuple[Samples, Samples]:
    """To train on and to test on: f32[N, 1, 20, 24] in dB, six speakers in both."""
    return recordings(data, "digits")


def recordings(data: Path, labelled: str) -> tuple[Samples, Samples]:
    """To train on and to test on, f32[N, 1, 20, 24] in dB, with what the source calls `labelled` numbered from 0."""
    with np.load(data / "spoken_digits" / "recordings.npz") as source:
        sounds = np.split(source["samples"], source["offsets"][1:-1])
        labels = np.unique(source[labelled], return_inverse=True)[1].astype(np.int64)
        tested = source["takes"] < TEST_TAKES
    inputs = np.stack([log_mel(sound) for sound in sounds])[:, np.newaxis]
    return Samples(inputs[~tested], labels[~tested]), Samples(inputs[tested], labels[tested])


def log_mel(sound: NDArray[np.int16]) -> NDArray[np.float32]:
    """Energies of one recording in dB, f32[bands, frames]."""
    length = FRAME + HOP * (FRAMES - 1)
    padded = np.zeros(length)
    padded[: sound.size] = sound[:length]
    frames = np.lib.stride_tricks.sliding_window_view(padded, FRAME)[::HOP]
    power = np.square(np.abs(np.fft.rfft(frames * np.hanning(FRAME)))) / FRAME
    return (10 * np.log10(_FILTERS @ power.T + QUIETEST)).astype(np.float32)


def _mel_filters() -> NDArray[np.float64]:
    """Triangles that overlap by half and are equally wide in mel (O'Shaughnessy 1987), f64[bands, bins]."""
    low, high = (2595 * np.log10(1 + hertz / 700) for hertz in (LOWEST, RATE / 2))
    edges = 700 * (10 ** (np.linspace(low, high, BANDS + 2) / 2595) - 1)
    bins = np.fft.rfftfreq(FRAME, 1 / RATE)
    lower, centre, upper = (edges[start : start + BANDS, np.newaxis] for start in range(3))
    rising, falling = (bins - lower) / (centre - lower), (upper - bins) / (upper - centre)
    return np.maximum(0, np.minimum(rising, falling))


_FILTERS = _mel_filters()
