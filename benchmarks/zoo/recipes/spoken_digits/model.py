"""A small network for spectrograms. Batch normalisation takes the place of scaling."""

from torch import nn


def build() -> nn.Module:
    """Log-mel energies in dB f32[N, 1, 20, 24] to one score per digit f32[N, 10]; 11,324 parameters."""
    return nn.Sequential(
        nn.BatchNorm2d(1),
        nn.Conv2d(1, 8, 5, stride=3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8 * 6 * 7, 32),
        nn.ReLU(),
        nn.Linear(32, 10),
    )
