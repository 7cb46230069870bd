"""A small network for columns that have little in common."""

from torch import nn


def build() -> nn.Module:
    """Columns in their units f32[N, 20] to one score per class f32[N, 4]."""
    return nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 4))
