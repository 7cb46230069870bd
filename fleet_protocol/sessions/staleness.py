"""How much a backward pass counts whose block has been trained since its forward pass. Pure."""

from typing import Final

EXPONENT: Final = 1.0
"""Of the number of updates; docs/decisions/stale-passes.md has what others give."""


def staleness_weight(updates: int, at_once: int = 1, company: int = 0) -> float:
    """The share of its learning rate that a backward pass trains a block with, where the block has had so many
    `updates` since the forward pass: (1 + updates)^-1 (Xie et al. 2019, "Asynchronous federated optimization",
    section 5.2, polynomial). It counts as having had `company` at least.

    Of passes that train it `at_once`, with the sum of their gradients, each counts as if it had come behind the others:
    this is their mean.
    """
    stale = (max(updates + place, company) for place in range(at_once))
    return float(sum((1 + each) ** -EXPONENT for each in stale) / at_once)
