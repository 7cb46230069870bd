"""What an iteration costs devices of the published kinds: virtual seconds, and bytes."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

import msgspec
import numpy as np

from benchmarks.published_latency import PROFILES
from benchmarks.split_gans.fleet import HolderOf
from benchmarks.split_gans.scenario import Participant
from benchmarks.wide_pair.lockstep import HELPER, machine_of
from fleet_protocol.split_plan import Cut, SplitPlan, WireFormat, device_blocks
from fleet_protocol.split_step_costs import step_walk
from fleet_protocol.task_description import TaskDescription
from workbench.split_planning.round_ends import device_round_end
from workbench.split_planning.timeline import Conditions, Walker, steps_done

SLOWEST_STEPS: Final = 50
"""Virtual time goes on for as long as the slowest device would take so many steps alone."""
FLOAT_BYTES: Final = 4

BothWays = tuple[int, int]
"""Bytes up and down, of a device."""


@dataclass(frozen=True, slots=True)
class Costs:
    """Of an iteration: virtual seconds where each device goes on by itself, and in lockstep; and the mean over devices
    of the bytes to the helper or coordinator and back.

    `sessions` are counted from real messages. `federations` are what an iteration has of a federation's updates and
    versions: about what the shipped codec makes of them, and as plain float32.
    """

    seconds: float
    seconds_in_lockstep: float
    sessions: BothWays
    federations: BothWays
    federations_as_float32: BothWays


@dataclass(frozen=True, slots=True)
class CostModel:
    """Of a task, with `forward_flops` in its blocks, whose sessions carry values as `wire`."""

    task: TaskDescription
    between_federations: int
    wire: WireFormat

    def of(self, participants: Sequence[Participant], holder_of: HolderOf, sessions: BothWays) -> Costs:
        """Devices have the published profiles in turn, and one helper; who stands for all devices computes as fast as
        the helper. `sessions` is what a step of a device has moved.
        """
        assert self.task.split is not None
        plan = msgspec.structs.replace(self.task.split, activations=self.wire, gradients=self.wire)
        task = msgspec.structs.replace(self.task, split=plan)
        cuts = [cut_of(each, holder_of, plan) for each in participants]
        alone, together = (
            max(each.steps for each in participants) * self._seconds_per_step(task, cuts, lockstep=lockstep)
            for lockstep in (False, True)
        )
        federated = len(participants) > 1
        ends = [device_round_end(task, cut) for cut in cuts if federated]
        floats = [FLOAT_BYTES * _held(task, plan, cut) for cut in cuts if federated]
        up, down = self._mean([each.up_bytes for each in ends]), self._mean([each.down_bytes for each in ends])
        return Costs(alone, together, sessions, (up, down), (self._mean(floats), self._mean(floats)))

    def _seconds_per_step(self, task: TaskDescription, cuts: Sequence[Cut], *, lockstep: bool) -> float:
        machines = [machine_of(profile) for profile in PROFILES] if len(cuts) > 1 else [HELPER]
        walkers = [
            Walker(
                machines[number % len(machines)],
                step_walk(task, cut),
                0,
                device_round_end(task, cut),
                self.between_federations,
            )
            for number, cut in enumerate(cuts)
        ]
        seconds = SLOWEST_STEPS * max(_seconds_alone(each) for each in walkers)
        done = steps_done(walkers, [HELPER], Conditions(seconds, lockstep=lockstep))
        return seconds * len(done) / max(sum(done), 1)

    def _mean(self, of_devices: Sequence[int]) -> int:
        """Of a federation, what an iteration has of it."""
        return round(float(np.mean(of_devices)) / self.between_federations) if of_devices else 0


def cut_of(participant: Participant, holder_of: HolderOf, plan: SplitPlan) -> Cut:
    """Which blocks somebody else holds."""
    ranges, start = [], 0
    for mine, blocks in groupby(range(len(plan.blocks)), lambda each: holder_of(participant, each, plan)):
        end = start + len(list(blocks))
        if mine != participant.name:
            ranges.append((start, end))
        start = end
    return Cut(participant.cut, ranges)


def _seconds_alone(walker: Walker) -> float:
    """Of a step with a helper that has nothing else to do."""
    machine, walk = walker.machine, walker.walk
    links = walk.up_bytes / machine.uplink + walk.down_bytes / machine.downlink
    return walk.device_flops / machine.flops + walk.helper_flops / HELPER.flops + links


def _held(task: TaskDescription, plan: SplitPlan, cut: Cut) -> int:
    own = device_blocks(plan, cut)
    return sum(each.size for each in task.parameters if each.block in own)
