"""A small network for spectrograms, without normalisation."""

from torch import nn


def build() -> nn.Module:
    """Log-mel energies in dB f32[N, 1, 20, 24] to one score per speaker f32[N, 6]."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 5, stride=3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8 * 6 * 7, 32),
        nn.ReLU(),
        nn.Linear(32, 6),
    )
