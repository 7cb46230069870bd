"""A small network for a chemical analysis."""

from torch import nn


def build() -> nn.Module:
    """Quantities in their units f32[N, 13] to one score per grower f32[N, 3]."""
    return nn.Sequential(nn.Linear(13, 32), nn.ReLU(), nn.Linear(32, 3))
