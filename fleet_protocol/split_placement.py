"""Where the passes of a step go: runs of the device's blocks, and of the helper's between them. Pure."""

from collections.abc import Collection
from dataclasses import dataclass

from fleet_protocol.split_plan import Cut, SplitPlan, is_helpers


@dataclass(frozen=True, slots=True)
class Leg:
    """Neighbouring blocks [first, end) on one side, all of one part of the task."""

    first: int
    end: int
    at_helper: bool

    @property
    def blocks(self) -> range:
        """Their numbers."""
        return range(self.first, self.end)


@dataclass(frozen=True, slots=True)
class PartPass:
    """One forward and backward pass of a step: for `part`, empty where the task has none, back to block `until`."""

    part: str
    until: int

    def trains(self, plan: SplitPlan, block: int) -> bool:
        """Whether the pass updates the block's weights."""
        return plan.blocks[block].part == self.part or not self.part


def legs_of(plan: SplitPlan, cut: Cut) -> list[Leg]:
    """From the first block to the last but one, which has no forward pass of its own and is the device's."""
    legs: list[Leg] = []
    for block in range(len(plan.blocks) - 1):
        before = legs[-1] if legs else None
        here = is_helpers(cut, block)
        if before and before.at_helper == here and plan.blocks[block - 1].part == plan.blocks[block].part:
            legs[-1] = Leg(before.first, block + 1, here)
        else:
            legs.append(Leg(block, block + 1, here))
    return legs


def passes_of(plan: SplitPlan, buffered: Collection[int] = ()) -> list[PartPass]:
    """The passes of a step, one for each part in its turn. Each goes back to the first block that it trains, or that is
    `buffered`: has buffers, which move in every backward pass.
    """
    return [PartPass(part, _first_changed(plan, part, buffered)) for part in plan.turns]


def _first_changed(plan: SplitPlan, part: str, buffered: Collection[int]) -> int:
    changed = (number in buffered or part in ("", block.part) for number, block in enumerate(plan.blocks))
    return next((number for number, changes in enumerate(changed) if changes), 0)


def held_of(plan: SplitPlan, cut: Cut, samples: int) -> tuple[int, ...]:
    """Of each block the samples that train it on the device, for the round's update: all, or 0 of the helper's."""
    return tuple(0 if is_helpers(cut, block) else samples for block in range(len(plan.blocks)))
