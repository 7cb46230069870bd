"""Who sends how many of a task's updates. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

EDGES = {"median": 0.5, "p90": 0.9, "p99": 0.99, "largest": 1.0}


@dataclass(frozen=True, slots=True)
class Participation:
    """Over all devices that may take part; `gini` is 0 where all send alike, and near 1 where one sends all."""

    devices: int
    silent: int
    gini: float
    busiest_share: float


def participation(counts: Sequence[int]) -> Participation | None:
    """Of how many updates each device sent, 0 for those that sent none; None where nobody did."""
    total = sum(counts)
    if not total:
        return None
    return Participation(len(counts), sum(not each for each in counts), gini(counts), max(counts) / total)


def gini(counts: Sequence[int]) -> float:
    """The Gini coefficient of numbers that are not negative, not all 0 (as Dixon et al. 1987 write it):

    G = sum over i of (2 i - n - 1) x_i / (n sum x), x ascending, i from 1.
    """
    ascending, number = sorted(counts), len(counts)
    weighted = sum((2 * place - number - 1) * each for place, each in enumerate(ascending, 1))
    return weighted / (number * sum(ascending))


def quantiles(values: Sequence[float]) -> dict[str, float]:
    """The median and the upper end of some numbers, each a value that is there (the nearest rank); none of none."""
    ascending = sorted(values)
    last = len(ascending) - 1
    return {name: ascending[round(edge * last)] for name, edge in EDGES.items()} if ascending else {}
