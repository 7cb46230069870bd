"""A network that learns what a healthy machine sounds like, by squeezing its spectra through a narrow place."""

from torch import nn

LEVELS = 96
WIDE = 32
NARROW = 8


def build() -> nn.Module:
    """Levels f32[N, 96] to the same levels as far as the network can tell f32[N, 96]; 6,824 parameters."""
    return nn.Sequential(
        nn.Linear(LEVELS, WIDE),
        nn.Tanh(),
        nn.Linear(WIDE, NARROW),
        nn.Tanh(),
        nn.Linear(NARROW, WIDE),
        nn.Tanh(),
        nn.Linear(WIDE, LEVELS),
    )
