"""A small network that tells handwritten digits apart."""

from torch import nn


def build() -> nn.Module:
    """64 brightness values f64[N, 64] to one score per digit f64[N, 10]; 4,810 parameters."""
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
