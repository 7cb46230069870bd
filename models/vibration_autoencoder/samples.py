"""From a block of acceleration to a sample. Runs on the device, in the program that reads the accelerometer.

It needs numpy, which is installed with the agent; the agent itself still sleeps without it. Scaling is by fixed
levels, so a device needs no statistics of its own past.
"""

import numpy as np
from numpy.typing import NDArray

SAMPLE_RATE_HZ = 12_800
BLOCK_SAMPLES = 8192
SPECTRUM_BANDS, ENVELOPE_BANDS = 32, 64
RESONANCE_BAND_HZ = (2400.0, 4200.0)
"""Where the housing rings. Measure it once with a hammer blow; a filter around it is what makes faults audible."""
ENVELOPE_LIMIT_HZ = 400.0
MIDDLE_DECIBEL, HALF_RANGE_DECIBEL = -55.0, 35.0
"""Levels re 1 g: from the noise floor of a MEMS sensor to a shaft that is badly out of balance."""


def inputs_from_acceleration(block: NDArray[np.float64]) -> NDArray[np.float32]:
    """`inputs` float32 [96] in [-1, 1] of one block float64 [8192] in g, sampled at 12.8 kHz.

    32 bands of 200 Hz of the spectrum, then 64 bands of 6.25 Hz of the envelope's: the resonance band, demodulated by
    the Hilbert transform (Randall and Antoni 2011, section 4), in which impacts show at the rate that they have.

    Raises:
        ValueError: a block of another length, or one with NaN or infinity.
    """
    if block.shape != (BLOCK_SAMPLES,) or not np.isfinite(block).all():
        raise ValueError(f"a block is {BLOCK_SAMPLES} finite values, not {block.shape}; check sensor and sample rate")
    window = np.hanning(BLOCK_SAMPLES)
    spectrum = np.fft.rfft((block - block.mean()) * window)
    envelope = _envelope(block)
    envelope_spectrum = np.fft.rfft((envelope - envelope.mean()) * window)
    limit = round(ENVELOPE_LIMIT_HZ * BLOCK_SAMPLES / SAMPLE_RATE_HZ)
    levels = [
        _band_levels(spectrum[1:], SPECTRUM_BANDS),
        _band_levels(envelope_spectrum[1 : limit + 1], ENVELOPE_BANDS),
    ]
    scaled = (np.concatenate(levels) - MIDDLE_DECIBEL) / HALF_RANGE_DECIBEL
    return np.clip(scaled, -1, 1).astype(np.float32)


def _envelope(block: NDArray[np.float64]) -> NDArray[np.float64]:
    """Magnitude of the analytic signal of the resonance band: other and negative frequencies are left out."""
    spectrum = np.fft.fft(block)
    frequencies = np.fft.fftfreq(BLOCK_SAMPLES, 1 / SAMPLE_RATE_HZ)
    low, high = RESONANCE_BAND_HZ
    return np.abs(np.fft.ifft(np.where((frequencies >= low) & (frequencies <= high), 2 * spectrum, 0)))


def _band_levels(spectrum: NDArray[np.complex128], bands: int) -> NDArray[np.float64]:
    """Root mean square amplitude of each band, in decibel re 1 g."""
    amplitudes = (np.abs(spectrum) * 4 / BLOCK_SAMPLES).reshape(bands, -1)  # 2 for one side, 2 for the window's mean
    return 10 * np.log10(np.mean(amplitudes**2, axis=1) + 1e-20)
