"""A small network for regression on patients' measurements."""

from torch import nn


def build() -> nn.Module:
    """Measurements in their units f32[N, 10] to the progress f32[N, 1]."""
    return nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 1))
