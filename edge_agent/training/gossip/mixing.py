"""How a device's neighbours move it: by their weighted mean, or by a vote. Pure.

Either way their numbers are bounded by the device's own rounds, of which `largest` is the usual norm.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fleet_protocol.gossip_plan import MixingRule

Differences = Sequence[NDArray[np.float64]]
"""By neighbour, how its model differs from the device's: float64 [P], finite."""
Mix = Callable[[Differences, Sequence[float], float], NDArray[np.float64]]
"""Takes differences (one or more), the weight of each, and the largest norm; gives a move, float64 [P]."""


def clipped_mean(differences: Differences, weights: Sequence[float], largest: float) -> NDArray[np.float64]:
    """sum_j clip(w_j d_j): no neighbour moves a device further than `largest`, and the direction stays its own.

    ClippedGossip (He, Karimireddy and Jaggi 2022, equation 3) with the bound on what a neighbour does, w_j d_j.
    """
    total = np.zeros_like(differences[0])
    for difference, weight in zip(differences, weights, strict=True):
        norm = weight * float(np.linalg.norm(difference))
        total += weight * min(1.0, largest / norm if norm > 0 else 1.0) * difference
    return total


def majority_vote(differences: Differences, _weights: Sequence[float], largest: float) -> NDArray[np.float64]:
    """sign(sum_j sign(d_j)), entry by entry: where the majority is, each with one vote (signSGD with majority vote,
    Bernstein et al. 2019, algorithm 1).

    Gradients take a step of one length; models are to meet, so no entry goes further than half of the neighbours'
    differences do (their median magnitude), nor than `largest` / sqrt(P), by which the move has at most that norm.
    """
    stacked = np.stack(differences)
    direction = np.sign(np.sign(stacked).sum(axis=0))
    furthest = np.minimum(np.median(np.abs(stacked), axis=0), largest / math.sqrt(stacked.shape[1]))
    return np.asarray(direction * furthest, np.float64)


MIXING_RULES: Final[Mapping[MixingRule, Mix]] = {"mean": clipped_mean, "vote": majority_vote}
