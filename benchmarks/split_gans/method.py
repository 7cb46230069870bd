"""What a way of training generators together is: who trains, who holds which block, what a federation does."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from benchmarks.split_gans.averaging_plan import Member, averaging_plan
from benchmarks.split_gans.fleet import HELPER, GanFleet, HolderOf
from benchmarks.split_gans.scenario import CLASSES, Participant, Scenario
from fleet_protocol.split_plan import SplitPlan, is_helpers


def no_offset(_domain: int) -> int:
    """Classes have the same numbers in every domain."""
    return 0


def own_classes(domain: int) -> int:
    """Each domain has classes of its own."""
    return domain * CLASSES


Federate = Callable[[GanFleet, int], int]
"""The federation of this number, from 1; how many clusters it found, 0 where it looks for none."""


@dataclass(frozen=True, slots=True)
class Method:
    """`class_offset` is what is added to the classes of a domain, of which it is given the number."""

    participants: Callable[[Scenario], Sequence[Participant]]
    holder_of: HolderOf
    federate: Federate
    class_offset: Callable[[int], int] = field(default=no_offset)


def devices(scenario: Scenario) -> Sequence[Participant]:
    """Every device trains."""
    return scenario.devices


def by_cut(participant: Participant, block: int, plan: SplitPlan) -> str:
    """The device's own block, or the one helper's, as its cut says."""
    return HELPER if is_helpers(plan.cut(participant.cut), block) else participant.name


def own(participant: Participant, _block: int, _plan: SplitPlan) -> str:
    """Everything is the participant's own."""
    return participant.name


def nothing(_fleet: GanFleet, _number: int) -> int:
    """No federation."""
    return 0


def members(fleet: GanFleet, holder_of: HolderOf) -> list[Member]:
    """All devices as one cluster, weighed by their samples."""
    blocks = range(len(fleet.plan.blocks))
    return [
        Member(
            each.name,
            frozenset(block for block in blocks if holder_of(each, block, fleet.plan) == each.name),
            HELPER,
            len(each.data),
            0,
            len(each.data),
        )
        for each in fleet.participants
    ]


def average_plainly(fleet: GanFleet, holder_of: HolderOf) -> None:
    """One mean of each block, over all who hold it."""
    fleet.average(averaging_plan(members(fleet, holder_of), len(fleet.plan.blocks), 1))
