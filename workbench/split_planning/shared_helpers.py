"""A plan for a whole fleet: which cut and which helper each device takes, and what that costs all of them. Pure.

Steps of several devices meet at their helper and wait there (`helper_queue`). A plan is judged by

    score = mean seconds of a step + bytes_weight * mean bytes of a step, both over devices
"""

import itertools
import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from fleet_protocol.split_plan import Cut
from workbench.split_planning.cut_options import CutOption, Machine
from workbench.split_planning.helper_queue import Customers, seconds_at_helper
from workbench.split_planning.round_ends import NOTHING, RoundEnd

Choice = tuple[int, int]
"""Which of a device's options, and which helper; the whole step has no helper, and 0 there."""
Plan = tuple[Choice, ...]
"""Of each device, group by group."""
Share = tuple[int, Choice]
"""A choice of devices of the group with this number."""
Shares = frozenset[tuple[Share, int]]
"""How many devices of each group take each choice: all that a plan's cost depends on."""
MiddleEnd = Callable[[Collection[Cut]], RoundEnd]
"""What the end of a round takes of a helper whose devices have these cuts."""


@dataclass(frozen=True, slots=True)
class Group:
    """So many devices that are alike, and their options that fit."""

    options: Sequence[CutOption]
    count: int


@dataclass(frozen=True, slots=True)
class PlanCost:
    """Means over devices: seconds of a step, and bytes both ways. `share_seconds` are those of each share's steps,
    `busy` is how much of the time each helper computes.
    """

    seconds: float
    step_bytes: float
    share_seconds: Mapping[Share, float]
    busy: Sequence[float]


def no_middle_end(_cuts: Collection[Cut]) -> RoundEnd:
    """Helpers that send nothing themselves."""
    return NOTHING


class Sharing:
    """The groups of devices and the helpers of a fleet. What a plan costs is computed once."""

    def __init__(
        self,
        groups: Sequence[Group],
        helpers: Sequence[Machine],
        middle_end: MiddleEnd = no_middle_end,
        bytes_weight: float = 0.0,
    ) -> None:
        """`bytes_weight` is how many seconds of a step a byte is worth."""
        self.groups = groups
        self.helpers = helpers
        self.group_of = [number for number, group in enumerate(groups) for _ in range(group.count)]
        self.bytes_weight = bytes_weight
        self._middle_end = middle_end
        self._costs: dict[Shares, PlanCost] = {}

    def weighing(self, bytes_weight: float) -> "Sharing":
        """The same fleet, judged with another weight of bytes."""
        other = Sharing(self.groups, self.helpers, self._middle_end, bytes_weight)
        other._costs = self._costs
        return other

    def choices(self, group: int) -> list[Choice]:
        """What a device of a group can choose from."""
        found = []
        for number, option in enumerate(self.groups[group].options):
            helpers = range(len(self.helpers)) if option.cut.helper else range(1)
            found += [(number, helper) for helper in helpers]
        return found

    def shares(self, plan: Plan) -> Shares:
        """What a plan's cost depends on."""
        return frozenset(Counter(zip(self.group_of, plan, strict=True)).items())

    def plan_of(self, shares: Shares) -> Plan:
        """A plan with these shares."""
        return tuple(choice for (_, choice), count in sorted(shares) for _ in range(count))

    def score(self, shares: Shares) -> float:
        """What a plan is judged by: less is better."""
        cost = self.cost(shares)
        return cost.seconds + self.bytes_weight * cost.step_bytes

    def cost(self, shares: Shares) -> PlanCost:
        """Of a plan with these shares."""
        if (known := self._costs.get(shares)) is None:
            known = self._costs[shares] = self._computed(dict(shares))
        return known

    def number_of_plans(self) -> int:
        """How many there are that differ in their shares."""
        numbers = range(len(self.groups))
        return math.prod(
            math.comb(self.groups[each].count + len(self.choices(each)) - 1, self.groups[each].count)
            for each in numbers
        )

    def _computed(self, shares: Mapping[Share, int]) -> PlanCost:
        seconds = {share: self._option(share).seconds for share in shares}
        step_bytes = {share: self._option(share).step_bytes for share in shares}
        helped: dict[int, list[Share]] = {number: [] for number in range(len(self.helpers))}
        for share in shares:
            if self._option(share).cut.helper:
                helped[share[1][1]].append(share)
        busy = [0.0] * len(self.helpers)
        for number, mine in helped.items():
            end = self._middle_end([self._option(share).cut for share in mine]) if mine else NOTHING
            each = _each(end, sum(shares[share] for share in mine))
            customers = [self._customers(share, shares[share], self.helpers[number], each) for share in mine]
            for share, at_helper in zip(mine, seconds_at_helper(customers), strict=True):
                option, cost = self._option(share), self._option(share).costs[number]
                seconds[share] = cost.seconds_beside(at_helper) + option.round_seconds
                step_bytes[share] += sum(each) / option.round_steps
                busy[number] += shares[share] * cost.helper_seconds / seconds[share]
        return PlanCost(_mean(seconds, shares), _mean(step_bytes, shares), seconds, busy)

    def _option(self, share: Share) -> CutOption:
        group, (number, _) = share
        return self.groups[group].options[number]

    def _customers(self, share: Share, count: int, helper: Machine, end: tuple[float, float]) -> Customers:
        """`end` is what each device's part of the helper's own end of a round has, in bytes up and down."""
        option = self._option(share)
        cost = option.costs[share[1][1]]
        passing_in, passing_out = cost.up_bytes / helper.downlink, cost.down_bytes / helper.uplink
        elsewhere = cost.without_helper - passing_in - passing_out + cost.in_flight * option.round_seconds
        up, down = (each / option.round_steps for each in end)
        demands = (passing_in + down / helper.downlink, cost.helper_seconds, passing_out + up / helper.uplink)
        return Customers(count * cost.in_flight, max(1, cost.exchanges), max(0.0, elsewhere), demands)


def best_of_all(sharing: Sharing) -> Plan:
    """The best of all plans, each of which is looked at; the first of several."""
    of_groups = [
        itertools.combinations_with_replacement(sharing.choices(number), group.count)
        for number, group in enumerate(sharing.groups)
    ]
    every = (tuple(itertools.chain.from_iterable(each)) for each in itertools.product(*of_groups))
    return min(every, key=lambda plan: sharing.score(sharing.shares(plan)))


def _mean(values: Mapping[Share, float], shares: Mapping[Share, int]) -> float:
    """Over devices."""
    return math.fsum(values[share] * count for share, count in shares.items()) / sum(shares.values())


def _each(end: RoundEnd, devices: int) -> tuple[float, float]:
    """Each device's part, in bytes up and down."""
    return (end.up_bytes / devices, end.down_bytes / devices) if devices else (0.0, 0.0)
