"""The spoken digits as features of `models/speech_commands`, and how the benchmark's devices have them."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bundle_runtime.runner import BundleRunner
from bundle_runtime.samples import Samples
from models.speech_commands.samples import inputs_from_sound

RATE_HZ = 8_000
TEST_TAKES = 5
"""Takes 0 to 4 of each digit and speaker are the usual test set."""
DIGITS = 10
DIGITS_EACH = 3
DEVICES_PER_SPEAKER = 5


@dataclass(frozen=True, slots=True)
class SpokenDigits:
    """`features` f32[N, ...], 96 behind the backbone; `digits`, `speakers` int64[N]; `is_test` bool[N]."""

    features: NDArray[np.float32]
    digits: NDArray[np.int64]
    speakers: NDArray[np.int64]
    is_test: NDArray[np.bool_]

    def take(self, rows: NDArray[np.int64]) -> Samples:
        """Some of them as training takes them."""
        return Samples(self.features[rows], self.digits[rows])

    @property
    def test(self) -> Samples:
        """The test set."""
        return self.take(np.flatnonzero(self.is_test))

    @property
    def training(self) -> NDArray[np.int64]:
        """The rows of all others."""
        return np.flatnonzero(~self.is_test)


def read_spoken_digits(data: Path, runner: BundleRunner) -> SpokenDigits:
    """All 3,000 recordings, behind the bundle's backbone."""
    return read_recordings(data, lambda sound: runner.features(inputs_from_sound(sound, RATE_HZ)[None]))


def read_recordings(data: Path, featured: Callable[[NDArray[np.int16]], NDArray[np.float32]]) -> SpokenDigits:
    """All 3,000 recordings; `featured` makes the features f32[1, ...] of one, int16 at `RATE_HZ`."""
    with np.load(data / "spoken_digits" / "recordings.npz") as source:
        sound, offsets = source["samples"], source["offsets"]
        digits, speakers, takes = (source[name].astype(np.int64) for name in ("digits", "speakers", "takes"))
    pieces = (sound[start:end] for start, end in pairwise(offsets))
    features = np.concatenate([featured(piece) for piece in pieces])
    return SpokenDigits(features, digits, speakers, takes < TEST_TAKES)


def one_speaker_three_digits(data: SpokenDigits) -> list[NDArray[np.int64]]:
    """30 devices: five of each speaker, with three digits each, among which the recordings of a digit go round."""
    rows: list[list[int]] = [[] for _ in range(DEVICES_PER_SPEAKER * len(set(data.speakers.tolist())))]
    for number, row in enumerate(data.training):
        speaker, digit = int(data.speakers[row]), int(data.digits[row])
        first = DEVICES_PER_SPEAKER * speaker
        own = [
            first + place
            for place in range(DEVICES_PER_SPEAKER)
            if (digit - 2 * place - speaker) % DIGITS < DIGITS_EACH
        ]
        rows[own[number % len(own)]].append(int(row))
    return [np.array(each) for each in rows]


def divided(data: SpokenDigits, devices: int, skew: str, seed: int) -> list[NDArray[np.int64]]:
    """The training rows among so many devices, none of them empty: `iid`, `dirichlet_0.1` or `one_class`."""
    generator = np.random.default_rng(seed)
    if skew == "iid":
        return [np.sort(part) for part in np.array_split(generator.permutation(data.training), devices)]
    rows: list[list[int]] = [[] for _ in range(devices)]
    for digit in range(DIGITS):
        own = generator.permutation(data.training[data.digits[data.training] == digit])
        if skew == "one_class":
            for place, part in enumerate(np.array_split(own, devices // DIGITS)):
                rows[digit + DIGITS * place] += part.tolist()
            continue
        shares = generator.dirichlet(np.full(devices, 0.1))
        holders = generator.choice(devices, len(own), p=shares)
        for device, row in zip(holders, own, strict=True):
            rows[device].append(int(row))
    return [np.array(each) for each in rows if each]
