"""What a room and a microphone make of clean speech: speed, echo, band, noise, loudness, place in time. Pure."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Sound = NDArray[np.float64]

SILENCE = 0.02
"""Of the loudest value: what is quieter at the ends is cut off."""
ECHO_DECAY = 6.9
"""Powers of e in 60 dB: a room's echo has decayed by so much after its reverberation time."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where something is said: seconds of `room` echo, `noise` in dB below the speech, the highest frequency of the
    microphone is half of `band_hz`; `speed` is how much faster, and so higher, it comes out.
    """

    room: float
    noise: float
    band_hz: float
    speed: float = 1.0

    def __str__(self) -> str:
        """For people."""
        return f"room {self.room:.2f} s, noise {self.noise:.0f} dB, band {self.band_hz:.0f} Hz, speed {self.speed:.2f}"


def recorded(
    speech: Sound, rate_hz: int, place: Place, *, length: int, wanted_hz: int, generator: np.random.Generator
) -> Sound:
    """`speech` at `rate_hz` as it would be recorded there: `length` values, -1 to 1, at `wanted_hz`."""
    spoken = resampled(trimmed(speech), round(rate_hz * place.speed), wanted_hz)
    heard = _limited(_echoed(spoken, place.room, wanted_hz, generator), min(place.band_hz, wanted_hz) / wanted_hz)
    heard = _placed(heard, length, generator)
    loudness = float(np.sqrt(np.mean(np.square(heard)))) or 1.0
    hiss = _limited(_noise(length, generator), min(place.band_hz, wanted_hz) / wanted_hz)
    mixed = heard + hiss * loudness * 10 ** (-place.noise / 20)
    loudest = float(np.abs(mixed).max()) or 1.0
    quieter: Sound = mixed / loudest * generator.uniform(0.2, 0.95)
    return quieter


def trimmed(speech: Sound) -> Sound:
    """Without silence at its ends."""
    loud = np.flatnonzero(np.abs(speech) > SILENCE * np.abs(speech).max())
    return speech[loud[0] : loud[-1] + 1] if loud.size else speech


def resampled(sound: Sound, rate_hz: int, wanted_hz: int) -> Sound:
    """At another rate, by its Fourier transform."""
    wanted = max(1, round(len(sound) * wanted_hz / rate_hz))
    found: Sound = np.fft.irfft(np.fft.rfft(sound), wanted) * (wanted / len(sound))
    return found


def _echoed(sound: Sound, seconds: float, rate_hz: int, generator: np.random.Generator) -> Sound:
    """Convolved with noise that decays: what a room of that reverberation time answers."""
    count = int(seconds * rate_hz)
    if count < 2:
        return sound
    answer = generator.standard_normal(count) * np.exp(-ECHO_DECAY * np.arange(count) / count)
    answer *= 0.5 / np.sqrt(np.square(answer).sum())
    answer[0] = 1.0
    size = len(sound) + count
    echoed: Sound = np.fft.irfft(np.fft.rfft(sound, size) * np.fft.rfft(answer, size), size)
    return echoed


def _limited(sound: Sound, share: float) -> Sound:
    """Without frequencies above that share of the highest."""
    spectrum = np.fft.rfft(sound)
    spectrum[int(share * len(spectrum)) :] = 0
    limited: Sound = np.fft.irfft(spectrum, len(sound))
    return limited


def _noise(length: int, generator: np.random.Generator) -> Sound:
    """Between white and pink, of loudness 1."""
    spectrum = np.fft.rfft(generator.standard_normal(length))
    spectrum /= np.maximum(np.arange(len(spectrum)), 1) ** generator.uniform(0, 0.5)
    noise = np.fft.irfft(spectrum, length)
    loudness = float(np.sqrt(np.mean(np.square(noise)))) or 1.0
    found: Sound = noise / loudness
    return found


def _placed(sound: Sound, length: int, generator: np.random.Generator) -> Sound:
    """In the middle of so many values, moved by up to a tenth of them; the middle of it where it is longer."""
    if len(sound) >= length:
        start = (len(sound) - length) // 2
        return sound[start : start + length]
    free = length - len(sound)
    before = int(np.clip(free / 2 + generator.uniform(-0.1, 0.1) * length, 0, free))
    return np.pad(sound, (before, free - before))
