"""A small convolutional network for pictures of 28x28 pixels."""

from torch import nn


def build() -> nn.Module:
    """Brightness f32[N, 1, 28, 28] to one score per class f32[N, 10]; 9,098 parameters."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(16 * 7 * 7, 10),
    )
