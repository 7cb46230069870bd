"""A small network for measurements of cells."""

from torch import nn


def build() -> nn.Module:
    """Measurements in their units f32[N, 30] to scores for malignant and benign f32[N, 2]."""
    return nn.Sequential(nn.Linear(30, 32), nn.ReLU(), nn.Linear(32, 2))
