"""A plan for a whole fleet: which cut and which helper each device takes, and what that costs all of them. Pure.

A helper serves its devices in turn, so a step there takes what the steps of all of its devices take together:

    load[h] = sum of the floating point operations of its devices' steps / speed[h]
    seconds = mean over devices of the step's seconds beside load[its helper]
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from workbench.split_planning.cut_options import CutOption

Choice = tuple[int, int]
"""Which of a device's options, and which helper; the whole step has no helper, and 0 there."""
Plan = tuple[Choice, ...]
"""Of each device, in order."""


@dataclass(frozen=True, slots=True)
class Sharing:
    """The devices' options that fit, and the helpers' speeds, in floating point operations a second.

    Options were computed for a helper of `reference` operations a second.
    """

    devices: Sequence[Sequence[CutOption]]
    speeds: Sequence[float]
    reference: float

    def choices(self, device: int) -> list[Choice]:
        """What a device can choose from."""
        found = []
        for number, option in enumerate(self.devices[device]):
            helpers = range(len(self.speeds)) if option.cut.helper else range(1)
            found += [(number, helper) for helper in helpers]
        return found

    def loads(self, plan: Plan) -> list[float]:
        """Seconds that a step of each device of a helper takes there, together."""
        operations = [0.0] * len(self.speeds)
        for options, (number, helper) in zip(self.devices, plan, strict=True):
            if options[number].cut.helper:
                operations[helper] += options[number].cost.helper_seconds * self.reference
        return [each / speed for each, speed in zip(operations, self.speeds, strict=True)]

    def seconds(self, plan: Plan) -> list[float]:
        """Of a step of each device."""
        loads = self.loads(plan)
        return [
            options[number].cost.seconds_beside(loads[helper] if options[number].cut.helper else 0.0)
            for options, (number, helper) in zip(self.devices, plan, strict=True)
        ]

    def mean_seconds(self, plan: Plan) -> float:
        """What a plan is judged by."""
        return math.fsum(self.seconds(plan)) / len(plan)

    def number_of_plans(self) -> int:
        """How many there are."""
        return math.prod(len(self.choices(device)) for device in range(len(self.devices)))


def best_of_all(sharing: Sharing) -> Plan:
    """The best of all plans, each of which is looked at; the first of several."""
    every = itertools.product(*(sharing.choices(device) for device in range(len(sharing.devices))))
    return min(every, key=sharing.mean_seconds)
