"""A convolutional network in four blocks, of which a helper may run one or both in the middle."""

from torch import nn


def build() -> nn.Module:
    """Images f32[N, 1, 28, 28] to scores f32[N, 10]."""
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.ReLU()),
        nn.Sequential(nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.ReLU()),
        nn.Sequential(nn.Flatten(), nn.Linear(16 * 7 * 7, 64), nn.ReLU()),
        nn.Linear(64, 10),
    )
