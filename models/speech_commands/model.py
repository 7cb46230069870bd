"""The head behind Google's speech embedding: one linear layer, which the coordinator solves."""

from torch import nn

FEATURES = 96
WORDS = 10


def build() -> nn.Module:
    """Features f32[N, 96] of a second of speech to scores of the words f32[N, 10]; 970 parameters."""
    return nn.Linear(FEATURES, WORDS)
