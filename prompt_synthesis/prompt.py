"""What is to be synthesised: one class in one style, as some devices have it. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fleet_protocol.codec import ClassStatistics
from fleet_protocol.kinds import Prompts
from fleet_protocol.prompt_plan import PromptPlan

Told = tuple[Prompts, ClassStatistics | None]
"""What one device tells, and its moments where it tells some."""


@dataclass(frozen=True, slots=True)
class Mixture:
    """Normal distributions of features: `weights` [K], which add up to 1, `means` and `variances` [K, D]."""

    weights: NDArray[np.float64]
    means: NDArray[np.float64]
    variances: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Prompt:
    """`word` is what the class `label` is called, `devices` how many tell it in this `style`. The `mixture` is of their
    features; None where none of them tells any.
    """

    label: int
    word: str
    style: str
    devices: int
    mixture: Mixture | None = None


def combined(told: Mapping[str, Told], plan: PromptPlan) -> list[Prompt]:
    """The prompts of all devices, by class and style. Each device counts as one, however many samples it claims."""
    found: dict[tuple[int, str], list[Mixture | None]] = {}
    for _, (prompts, moments) in sorted(told.items()):
        groups = plan.groups(prompts.level)
        for label, magnitude in enumerate(prompts.magnitudes):
            if magnitude:
                mixture = None if moments is None else _mixture(moments, slice(label * groups, (label + 1) * groups))
                found.setdefault((label, prompts.style), []).append(mixture)
    return [
        Prompt(label, plan.word(label), style, len(each), _pooled(mixture for mixture in each if mixture is not None))
        for (label, style), each in sorted(found.items())
    ]


def _mixture(moments: ClassStatistics, groups: slice) -> Mixture:
    counts = moments.counts[groups].astype(np.float64)
    there = counts > 0
    shares = counts[there] / counts.sum()
    return Mixture(shares, moments.means[groups][there], moments.spread[groups][there])


def _pooled(mixtures: Iterable[Mixture]) -> Mixture | None:
    each = list(mixtures)
    if not each:
        return None
    return Mixture(
        np.concatenate([mixture.weights for mixture in each]) / len(each),
        np.concatenate([mixture.means for mixture in each]),
        np.concatenate([mixture.variances for mixture in each]),
    )


def allotted(prompts: Sequence[Prompt], count: int) -> list[int]:
    """How many samples are made of each prompt: `count` of every class, shared by how many devices tell it so."""
    numbers = [0] * len(prompts)
    of_class: dict[int, list[int]] = {}
    for place, prompt in enumerate(prompts):
        of_class.setdefault(prompt.label, []).append(place)
    for own in of_class.values():
        devices = np.cumsum([prompts[place].devices for place in own])
        ends = np.round(count * devices / devices[-1]).astype(int)
        for place, number in zip(own, np.diff(ends, prepend=0), strict=True):
            numbers[place] = int(number)
    return numbers
