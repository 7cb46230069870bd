"""The scale that a task's graphs bring inputs and targets to: mean 0 and deviation 1, column by column. Pure.

docs/decisions/fleet-scale.md says why it stands in `task.json` and not among the weights.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Final

import msgspec

from fleet_protocol.errors import ConfigurationError
from fleet_protocol.sample_schema import InputSchema, LabelSchema, runs

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

    `Block` says which values a column is of. Inputs of one dimension have a column for each value, those of more
    dimensions one column in all; targets have one for each value.
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


@dataclass(frozen=True, slots=True)
class Block:
    """A run of values in the row of one sample that a scale has columns for: one for each value, or one in all.

    `lowest` and `highest` are the bounds of the values, infinite where there are none.
    """

    start: int
    size: int
    columns: int
    lowest: float = -math.inf
    highest: float = math.inf

    @property
    def place(self) -> slice:
        """Of its values in the row."""
        return slice(self.start, self.start + self.size)


def input_blocks(inputs: Mapping[str, InputSchema]) -> list[Block]:
    """A picture's values have one unit, a table's have each their own; whole numbers name something, and have none."""
    return [
        Block(place.start, schema.size, schema.size if len(schema.shape) == 1 else 1, schema.minimum, schema.maximum)
        for _, schema, place in runs(inputs)
        if not schema.whole
    ]


def target_blocks(labels: Mapping[str, LabelSchema]) -> list[Block]:
    """Numbers to learn have each their unit, the same at every position; other labels have none."""
    blocks = []
    for _, label, place in runs(labels):
        if label.kind == "regression" and not label.shape:
            blocks.append(Block(place.start, label.size, label.size))
        elif label.kind == "regression":
            positions = label.size // label.values
            blocks += [Block(start, positions, 1) for start in range(place.start, place.stop, positions)]
    return blocks


def columns_of(blocks: Sequence[Block]) -> int:
    """Of the scale of these blocks."""
    return sum(block.columns for block in blocks)


def check_scaling(scaling: Scaling, inputs: Sequence[Block], targets: Sequence[Block], name: str) -> None:
    """Raise `ConfigurationError` unless every scale has its columns, all of finite numbers."""
    for what, scale, blocks in (("inputs", scaling.inputs, inputs), ("targets", scaling.targets, targets)):
        if scale is None:
            continue
        if not len(scale.mean) == len(scale.deviation) == columns_of(blocks):
            raise ConfigurationError(
                f"{name}: scaling.{what} has {len(scale.mean)} means and {len(scale.deviation)} deviations; the task"
                f" has {columns_of(blocks)} columns of {what}"
            )
        if not all(map(math.isfinite, (*scale.mean, *scale.deviation))):
            raise ConfigurationError(f"{name}: scaling.{what} has a number that is not finite")
