"""A small network for points in a plane."""

from torch import nn


def build() -> nn.Module:
    """Coordinates f32[N, 2] to one score per half circle f32[N, 2]."""
    return nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 2))
