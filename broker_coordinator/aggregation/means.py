"""The mean of figures for people to watch, whatever their size. Pure."""

from collections.abc import Iterable
from statistics import fmean


def mean_of(figures: Iterable[float]) -> float:
    """The mean of at least one finite number. Never raises where only the sum of them exceeds float64."""
    values = list(figures)
    try:
        return fmean(values)
    except OverflowError:
        largest = max(map(abs, values))
        return largest * fmean(value / largest for value in values)
