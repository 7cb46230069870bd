"""From recorded sound to a sample. Runs in the program that holds the microphone."""

import numpy as np
from numpy.typing import NDArray

SAMPLE_RATE_HZ = 16_000
LOUDEST = 32_768


def inputs_from_sound(sound: NDArray[np.int16], rate_hz: int) -> NDArray[np.float32]:
    """`inputs` f32[16000] of a sample from int16 sound at `rate_hz`: its middle second, with silence around it where it
    is shorter, brought to 16 kHz by its Fourier transform.

    Raises:
        ValueError: there is no sound.
    """
    if not len(sound):
        raise ValueError("no sound: a sample is made of one value at least")
    wanted = max(1, round(len(sound) * SAMPLE_RATE_HZ / rate_hz))
    spectrum = np.fft.rfft(sound.astype(np.float64))
    resampled = np.fft.irfft(spectrum, wanted) * (wanted / len(sound)) / LOUDEST
    if wanted > SAMPLE_RATE_HZ:
        start = (wanted - SAMPLE_RATE_HZ) // 2
        resampled = resampled[start : start + SAMPLE_RATE_HZ]
    silence = SAMPLE_RATE_HZ - len(resampled)
    return np.pad(resampled, (silence // 2, silence - silence // 2)).clip(-1, 1).astype(np.float32)
