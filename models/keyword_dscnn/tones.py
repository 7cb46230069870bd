"""Synthesised words: sequences of tones that stand in for speech, because no recordings ship with this project.

They are not speech, and a model trained on them recognises tones. What they keep of the problem is what makes keyword
spotting hard for a small network: words differ in how pitch and loudness move through time, and every utterance has
its own voice (pitch and overtones), tempo, onset and loudness, with noise and a hum behind it.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

SAMPLE_RATE_HZ = 8000
CLIP_SAMPLES = 8000

Word = Literal["silence", "unknown", "rise", "fall", "arch", "valley", "step_up", "step_down", "trill", "pulse"]
WORDS: tuple[Word, ...] = (
    "silence",
    "unknown",
    "rise",
    "fall",
    "arch",
    "valley",
    "step_up",
    "step_down",
    "trill",
    "pulse",
)
"""The labels, in order. As in "Hello Edge", silence and all other words are classes of their own."""

CONTOURS: dict[str, tuple[float, ...]] = {
    "rise": (0.0, 0.33, 0.67, 1.0),
    "fall": (1.0, 0.67, 0.33, 0.0),
    "arch": (0.0, 1.0, 1.0, 0.0),
    "valley": (1.0, 0.0, 0.0, 1.0),
}
"""Pitch at equal distances through the word, linear in between; 1 is `INTERVAL_OCTAVES` above 0."""
INTERVAL_OCTAVES = 0.9
OVERTONES = 6


def utter(generator: np.random.Generator, word: Word) -> NDArray[np.float64]:
    """One second float64 [8000] in [-1, 1] at 8 kHz: the word, spoken once by a voice of its own, over noise."""
    clip = _background(generator)
    if word != "silence":
        length = generator.uniform(0.45, 0.75)
        spoken = _spoken(generator, word, round(length * SAMPLE_RATE_HZ))
        onset = generator.integers(0, CLIP_SAMPLES - spoken.size)
        clip[onset : onset + spoken.size] += generator.uniform(0.15, 0.5) * spoken
    return np.clip(clip, -1, 1)


def _spoken(generator: np.random.Generator, word: Word, size: int) -> NDArray[np.float64]:
    """The word without background, peak about 1."""
    through = np.linspace(0, 1, size)
    height, loudness = _contour(generator, word, through)
    pitch_hz = generator.uniform(140, 280) * 2 ** (INTERVAL_OCTAVES * height)
    turning = 2 * np.pi * np.cumsum(pitch_hz) / SAMPLE_RATE_HZ
    overtones = generator.uniform(0.2, 1.0, OVERTONES) / np.arange(1, OVERTONES + 1)
    voice = sum(size * np.sin(order * turning) for order, size in enumerate(overtones, start=1))
    return np.asarray(voice) / overtones.sum() * loudness * np.minimum(1, 12 * np.minimum(through, 1 - through))


def _contour(
    generator: np.random.Generator, word: Word, through: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Pitch (0 to 1) and loudness (0 to 1) through the word."""
    steady, loud = np.full(through.size, 0.5), np.ones(through.size)
    rate = generator.uniform(6, 9)
    if word in CONTOURS:
        points = CONTOURS[word]
        return np.interp(through, np.linspace(0, 1, len(points)), points), loud
    if word == "unknown":
        points = tuple(generator.permutation([0.0, 0.5, 1.0, 0.25, 0.75]))
        return np.interp(through, np.linspace(0, 1, len(points)), points), loud
    moving = np.sin(2 * np.pi * rate * through)
    return {
        "step_up": (np.where(through < 0.5, 0.0, 1.0), loud),
        "step_down": (np.where(through < 0.5, 1.0, 0.0), loud),
        "trill": (steady + 0.3 * moving, loud),
        "pulse": (steady, 0.5 + 0.5 * moving),
    }[word]


def _background(generator: np.random.Generator) -> NDArray[np.float64]:
    """A room: noise that falls off towards high frequencies, and the hum of the mains."""
    white = generator.normal(size=CLIP_SAMPLES)
    smooth = np.convolve(white, np.full(8, 1 / 8), mode="same")
    hum = np.sin(2 * np.pi * 50 * np.arange(CLIP_SAMPLES) / SAMPLE_RATE_HZ + generator.uniform(0, 2 * np.pi))
    return generator.uniform(0.003, 0.02) * (0.5 * white + smooth) + generator.uniform(0, 0.02) * hum
