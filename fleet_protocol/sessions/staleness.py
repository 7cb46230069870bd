"""How much a pass counts whose block has been trained since. Pure."""

from typing import Final

EXPONENT: Final = 0.5
"""Of the number of updates; docs/decisions/stale-passes.md has what others give."""


def staleness_weight(updates: float) -> float:
    """The share of its learning rate that a backward pass trains a block with, where the block has had so many
    `updates` since the forward pass: (1 + updates)^-0.5 (Xie et al. 2019, "Asynchronous federated optimization",
    section 5.2, polynomial).
    """
    return float((1 + updates) ** -EXPONENT)
