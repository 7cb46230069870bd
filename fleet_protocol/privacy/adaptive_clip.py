"""A clip that follows the norms of updates: the table `[privacy.devices.adaptive_clip]`. Pure.

    clip <- clip * exp(-learning_rate * (noised share of updates within the clip - quantile))

Andrew, Thakkar, McMahan & Ramaswamy 2021, "Differentially private learning with adaptive clipping", algorithm 1. The
share is told by the same noise as the sum of updates: one device moves both together by as much as it moved the sum
alone, so epsilon stays as it is (docs/decisions/adaptive-clip-in-one-mechanism.md).
"""

import math
from typing import Annotated, Final

import msgspec

from fleet_protocol.privacy.mask_plan import LARGEST_CLIP, SMALLEST_CLIP

SHARE_DEVIATION: Final = 1 / 20
"""Of the noise in the share of updates within the clip, where no more than `MOST_OF_COUNT` is needed for it. The paper
recommends it."""
MOST_OF_COUNT: Final = 0.05
"""Of the squared norm by which one device may move what is noised, the count takes so much at most: updates then have
2.6 % more noise than with a fixed clip."""
MOST_SHARE_DEVIATION: Final = 0.5
"""With more, noise alone would move the clip further than all devices together can."""
CLIP_RANGE: Final = 2.0**20
"""Between the largest clip and the smallest: from there, it is back in some hundred versions."""


class AdaptiveClip(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The clip follows a quantile of the norms of updates, within the same epsilon (docs/privacy.md)."""

    at_most: Annotated[float, msgspec.Meta(ge=SMALLEST_CLIP, le=LARGEST_CLIP)]
    """The largest that the clip becomes. Devices scale longer updates down to it."""
    quantile: Annotated[float, msgspec.Meta(gt=0, lt=1)] = 0.5
    """The share of updates that are to be no longer than the clip."""
    learning_rate: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.2
    """How fast the clip follows: a version changes its logarithm by this, times the share that is missing."""

    @property
    def at_least(self) -> float:
        """The smallest that the clip becomes."""
        return self.at_most / CLIP_RANGE

    def after(self, clip: float, within: float, updates: int, buffer_size: int) -> float:
        """What the clip would be behind a version that had `clip`, and so many updates, without its bounds.

        `within` is the noised number of those that are no longer than the clip, less half of them all. A version of
        fewer updates than `buffer_size` changes the clip by less, so that their noise does not change it by more.
        """
        missing = (within - (self.quantile - 0.5) * updates) / buffer_size
        return clip * math.exp(-self.learning_rate * missing)


def count_scale(deviation: float, buffer_size: int) -> float:
    """What one more update within the clip adds to the entry that counts them, in units of what a device may move.

    `deviation` is the noise's of each entry, in the same units. An update within the clip counts half of it, a longer
    one minus half, so that it takes a quarter of this, squared, of what the device may move.
    """
    return min(deviation / (SHARE_DEVIATION * buffer_size), 2 * math.sqrt(MOST_OF_COUNT))


def share_deviation(deviation: float, buffer_size: int) -> float:
    """Of the noise in the share of updates within the clip; `deviation` as in `count_scale`."""
    return deviation / (count_scale(deviation, buffer_size) * buffer_size)
