"""A network with one convolution for pictures of clothes."""

from torch import nn


def build() -> nn.Module:
    """Brightness f32[N, 1, 28, 28] to one score per kind f32[N, 10]; 5,338 parameters."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 5, stride=3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8 * 8 * 8, 10),
    )
