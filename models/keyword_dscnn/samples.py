"""From a second of sound to a sample. Runs on the device, in the program that reads the microphone.

It needs numpy, which is installed with the agent; the agent itself still sleeps without it.
"""

import numpy as np
from numpy.typing import NDArray

SAMPLE_RATE_HZ = 8000
CLIP_SAMPLES = 8000
FRAME_SAMPLES, STRIDE_SAMPLES = 320, 160
"""40 ms every 20 ms, as in "Hello Edge", section 4."""
FRAMES, BANDS = 49, 10
LOWEST_HZ, HIGHEST_HZ = 60.0, 3800.0
QUIET_DECIBEL, LOUD_DECIBEL = -100.0, -10.0
"""Band levels re full scale that become -1 and 1."""


def inputs_from_sound(clip: NDArray[np.float64]) -> NDArray[np.float32]:
    """`inputs` float32 [1, 49, 10] in [-1, 1] of one second float64 [8000] in [-1, 1], sampled at 8 kHz.

    Log energies of ten bands that are equally wide on the mel scale, of 49 overlapping frames. "Hello Edge" takes ten
    cepstral coefficients instead: the same numbers after a cosine transform, which the first layer can learn.

    Raises:
        ValueError: a clip of another length, or one with NaN or infinity.
    """
    if clip.shape != (CLIP_SAMPLES,) or not np.isfinite(clip).all():
        raise ValueError(f"a clip is {CLIP_SAMPLES} finite values, not {clip.shape}; resample the recording to 8 kHz")
    frames = np.lib.stride_tricks.sliding_window_view(clip, FRAME_SAMPLES)[::STRIDE_SAMPLES]
    window = np.hanning(FRAME_SAMPLES)
    power = np.abs(np.fft.rfft(frames * window)) ** 2 / window.sum() ** 2
    decibel = 10 * np.log10(power @ _MEL_BANK + 1e-12)
    scaled = (decibel - QUIET_DECIBEL) / (LOUD_DECIBEL - QUIET_DECIBEL) * 2 - 1
    return np.clip(scaled, -1, 1).astype(np.float32)[np.newaxis]


def _mel_bank() -> NDArray[np.float64]:
    """Overlapping triangles float64 [161, 10], equally wide in mel = 2595 log10(1 + f / 700) (O'Shaughnessy 1987)."""
    mel = np.linspace(*(2595 * np.log10(1 + edge / 700) for edge in (LOWEST_HZ, HIGHEST_HZ)), BANDS + 2)
    edges = 700 * (10 ** (mel / 2595) - 1)
    frequencies = np.fft.rfftfreq(FRAME_SAMPLES, 1 / SAMPLE_RATE_HZ)[:, np.newaxis]
    rising = (frequencies - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - frequencies) / (edges[2:] - edges[1:-1])
    return np.maximum(0, np.minimum(rising, falling))


_MEL_BANK = _mel_bank()
