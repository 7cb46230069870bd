"""A depthwise-separable convolutional network that spots keywords, after DS-CNN of Zhang et al. 2017, "Hello Edge"."""

from torch import nn

CHANNELS = 32
BLOCKS = 3
GROUPS = 4
WORDS = 10


def separable() -> list[nn.Module]:
    """A filter per channel, then a mix of channels: a ninth of the work of a full 3x3 convolution (section 3.5)."""
    return [
        nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, groups=CHANNELS, bias=False),
        nn.GroupNorm(GROUPS, CHANNELS),
        nn.ReLU(),
        nn.Conv2d(CHANNELS, CHANNELS, 1, bias=False),
        nn.GroupNorm(GROUPS, CHANNELS),
        nn.ReLU(),
    ]


def build() -> nn.Module:
    """Band levels f32[N, 1, 49, 10] to one score per word f32[N, 10]; 5,994 parameters.

    The paper's first layer, 10 frames by 4 bands with stride 2, then three separable blocks of 32 channels (its
    smallest network has four of 64). Groups are normalised instead of batches: the statistics of one device's batches
    say little about another's (Hsieh et al. 2020).
    """
    layers: list[nn.Module] = [
        nn.Conv2d(1, CHANNELS, (10, 4), stride=2, padding=(5, 1), bias=False),
        nn.GroupNorm(GROUPS, CHANNELS),
        nn.ReLU(),
    ]
    for _ in range(BLOCKS):
        layers += separable()
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(CHANNELS, WORDS))
