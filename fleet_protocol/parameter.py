"""One tensor of a flat weight vector."""

import math
from collections.abc import Sequence

import msgspec

from fleet_protocol.configuration import PositiveInt


class Parameter(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One float32 tensor of the flat weight vector, which holds them in this order.

    One that isn't `trainable` is a buffer that training changes in another way, such as a running mean; buffers
    stand behind all others.
    """

    name: str
    shape: list[PositiveInt]
    trainable: bool = True
    block: int = 0
    """Which block of the task's `split` it is in."""

    @property
    def size(self) -> int:
        """Values in the tensor."""
        return math.prod(self.shape)


def first_statistic(parameters: Sequence[Parameter]) -> int:
    """The place of the first entry behind the last trainable one."""
    place = len(parameters)
    while place and not parameters[place - 1].trainable:
        place -= 1
    return place
