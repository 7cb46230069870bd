"""A small convolutional network for spectrograms. Batch normalisation takes the place of scaling."""

from torch import nn


def build() -> nn.Module:
    """Log-mel energies in dB f32[N, 1, 20, 24] to one score per digit f32[N, 10]."""
    return nn.Sequential(
        nn.BatchNorm2d(1),
        nn.Conv2d(1, 16, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * 5 * 6, 10),
    )
