"""How far distributions are from each other: of labels between devices, of a field between two queries. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from statistics import fmean, median

Shares = Sequence[float]
"""Of a distribution over bins: not negative, 1 together."""


def shares_of(counts: Sequence[float]) -> list[float] | None:
    """Counts as shares, negative ones, which noise makes, as 0; None where there is nothing."""
    filled = [max(count, 0.0) for count in counts]
    total = math.fsum(filled)
    return [count / total for count in filled] if total > 0 else None


def jensen_shannon(first: Shares, second: Shares) -> float:
    """The Jensen-Shannon divergence in bits, from 0, alike, to 1, nothing in common (Lin 1991, equation 3.1)."""
    mixture = [(one + other) / 2 for one, other in zip(first, second, strict=True)]
    return max(0.0, (_relative_entropy(first, mixture) + _relative_entropy(second, mixture)) / 2)


def earth_mover(first: Shares, second: Shares) -> float:
    """The earth mover's distance over bins in their order, as a share of the way from the first bin to the last.

    In one dimension it is the summed distance of the cumulated shares (Vallender 1974).
    """
    distances = (abs(each) for each in accumulate(one - other for one, other in zip(first, second, strict=True)))
    return math.fsum(distances) / max(len(first) - 1, 1)


UNLIKE = 0.3
"""In bits: a device with half of the labels, where the fleet has all of them alike, has 0.31."""


@dataclass(frozen=True, slots=True)
class Divergence:
    """Of devices' distributions from what all have together: over devices. No number is that of one device."""

    devices: int
    mean_jensen_shannon: float
    median_jensen_shannon: float
    mean_earth_mover: float
    median_earth_mover: float
    unlike_the_fleet: int
    """Devices with a Jensen-Shannon divergence above `UNLIKE`."""


def divergence(counts_of_devices: Sequence[Sequence[float]]) -> Divergence | None:
    """How far each device's counts are from those of all; None where none has any."""
    each = [shares for counts in counts_of_devices if (shares := shares_of(counts)) is not None]
    if not each:
        return None
    fleet = [fmean(column) for column in zip(*each, strict=True)]
    in_bits = [jensen_shannon(shares, fleet) for shares in each]
    moved = [earth_mover(shares, fleet) for shares in each]
    return Divergence(
        len(each),
        fmean(in_bits),
        median(in_bits),
        fmean(moved),
        median(moved),
        sum(bits > UNLIKE for bits in in_bits),
    )


def _relative_entropy(shares: Shares, mixture: Shares) -> float:
    return math.fsum(share * math.log2(share / mixed) for share, mixed in zip(shares, mixture, strict=True) if share)
