"""A network that learns what a healthy machine sounds like, by compressing its spectra to a few values."""

from torch import nn

LEVELS = 96
WIDE = 32
NARROW = 8


def build() -> nn.Module:
    """Levels f32[N, 96] to their reconstruction f32[N, 96]; 6,824 parameters."""
    return nn.Sequential(
        nn.Linear(LEVELS, WIDE),
        nn.Tanh(),
        nn.Linear(WIDE, NARROW),
        nn.Tanh(),
        nn.Linear(NARROW, WIDE),
        nn.Tanh(),
        nn.Linear(WIDE, LEVELS),
    )
