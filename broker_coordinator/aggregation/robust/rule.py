"""What a rule takes. Pure."""

from collections.abc import Callable
from dataclasses import dataclass

from broker_coordinator.aggregation.robust.stack import Stack, Vector


@dataclass(frozen=True, slots=True, eq=False)
class Compared:
    """Updates, one at least, of which at most so many are `hostile`; `last_direction` is that of the version before,
    float64, as long as the flat weights, zeros where none is kept. `trusted`, likewise, is the mean of what devices
    that the task trusts sent last, zeros where it trusts none.
    """

    stack: Stack
    hostile: int
    last_direction: Vector
    trusted: Vector


Rule = Callable[[Compared], Vector]
"""Gives a direction, float64, as long as the flat weights. The order of the updates changes no more than rounding."""
