"""The scale that a task's graphs bring inputs and targets to: mean 0 and deviation 1, column by column. Pure.

docs/decisions/fleet-scale.md says why it stands in `task.json` and not among the weights.
"""

import math
from collections.abc import Sequence
from typing import Annotated, Final

import msgspec

from fleet_protocol.errors import ConfigurationError

MOST_DEVIATIONS: Final = 10.0
"""What is further from its mean counts as being that far, in training and evaluation; predictions have no bound."""

UNITS_FACTOR: Final = 100.0
"""So many usual deviations from what is usual lies only what has another unit: below the 1,000 between two prefixes of
a unit, far above what devices in different places differ by."""

DEVIATION_OF_CONSTANTS: Final = 1.0
"""Of a column that does not vary in the fleet: nobody knows how far from it other values may be."""

SMALLEST_DEVIATION: Final = 1e-30
"""What is divided by in float32; a column that varies less is constant."""


class Scale(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """`(value - mean) / deviation`, for each column; an `awaited` one changes nothing, and the fleet's takes its place.

    Inputs of one dimension have a column for each value, those of more dimensions one column in all; targets have one
    for each value.
    """

    mean: list[float]
    deviation: list[Annotated[float, msgspec.Meta(ge=SMALLEST_DEVIATION)]]
    awaited: bool = False

    @classmethod
    def awaiting(cls, columns: int) -> "Scale":
        """The one that changes nothing, until devices have said how their values are distributed."""
        return cls([0.0] * columns, [1.0] * columns, awaited=True)

    @classmethod
    def of_ranges(cls, ranges: Sequence[Sequence[float]]) -> "Scale":
        """The one that brings (lowest, highest) of each column to -1 and 1."""
        return cls([(low + high) / 2 for low, high in ranges], [(high - low) / 2 for low, high in ranges])


class Scaling(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Of a task. Where one is None, those values are taken as they are."""

    inputs: Scale | None = None
    targets: Scale | None = None
    """Of regression alone. Predictions come out in the unit of the targets."""

    @property
    def is_awaited(self) -> bool:
        """Whether devices send statistics instead of training."""
        return any(scale is not None and scale.awaited for scale in (self.inputs, self.targets))


UNSCALED: Final = Scaling()
"""The one that `task.json` leaves out."""


def columns_of(shape: Sequence[int]) -> int:
    """Of inputs with this shape: a picture's values have one unit, a table's have each their own."""
    return shape[0] if len(shape) == 1 else 1


def check_scaling(scaling: Scaling, input_columns: int, target_columns: int, name: str) -> None:
    """Raise `ConfigurationError` unless every scale has its columns, all of finite numbers."""
    for what, scale, columns in (
        ("inputs", scaling.inputs, input_columns),
        ("targets", scaling.targets, target_columns),
    ):
        if scale is None:
            continue
        if not len(scale.mean) == len(scale.deviation) == columns:
            raise ConfigurationError(
                f"{name}: scaling.{what} has {len(scale.mean)} means and {len(scale.deviation)} deviations; the task"
                f" has {columns} columns of {what}"
            )
        if not all(map(math.isfinite, (*scale.mean, *scale.deviation))):
            raise ConfigurationError(f"{name}: scaling.{what} has a number that is not finite")
