"""A fleet in which some devices are in the middle of their round while a version is made of the others' updates."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from benchmarks.chained_blocks import ExportedTask
from benchmarks.split_gans.fleet import HELPER, GanFleet
from benchmarks.split_gans.method import by_cut
from benchmarks.split_gans.scenario import Participant
from benchmarks.split_gans.trainee import Training
from fleet_protocol.codec.sparse import FloatVector
from fleet_protocol.split_plan import SplitPlan

Version = Mapping[str, NDArray[np.float64]]
"""f64[P] of each device: that of its domain's cluster."""


@dataclass(slots=True)
class Shift:
    """Devices that begin and end their rounds together. They share a copy of what helpers hold, as they began with one
    version; `began` is what each had of it.
    """

    devices: Sequence[Participant]
    began: Version = field(default_factory=dict)


class FleetOutOfStep:
    """Of `shifts` that begin one after the other, evenly over a round of so many `steps`. Each version moves by
    `rate` times the mean of one shift's changes: in each domain's own blocks of its devices, in the helper's of all.

    Clusters are told, and every device has the same cut.
    """

    def __init__(
        self, exported: ExportedTask, devices: Sequence[Participant], training: Training, *, shifts: int, rate: float
    ) -> None:
        """Device i is in shift i modulo `shifts`."""
        self._devices, self._steps, self._rate = devices, training.iterations, rate
        self._shifts = [Shift(devices[number::shifts]) for number in range(shifts)]
        self._fleet = GanFleet(exported, devices, self._holder_of(shifts, devices), training)
        self.version: dict[str, NDArray[np.float64]] = {
            name: flat.astype(np.float64) for name, flat in self._fleet.all_weights().items()
        }
        self._helpers = self._fleet.entries_of(lambda block: by_cut(devices[0], block, self._fleet.plan) == HELPER)
        for shift in self._shifts:
            shift.began = dict(self.version)

    def train(self, round_steps: int) -> bool:
        """All iterations. Whether every number was finite."""
        for iteration in range(self._steps):
            if not self._fleet.iterate(iteration):
                return False
            for number, shift in enumerate(self._shifts):
                since = iteration + 1 - number * round_steps // len(self._shifts)
                if since > 0 and since % round_steps == 0:
                    self._end(shift)
        return True

    @property
    def weights(self) -> dict[str, FloatVector]:
        """f32[P] of each device: the newest version."""
        return {name: flat.astype(np.float32) for name, flat in self.version.items()}

    def _end(self, shift: Shift) -> None:
        """Its updates make a version, with which it begins anew."""
        now = self._fleet.all_weights()
        changes = {each.name: now[each.name] - shift.began[each.name] for each in shift.devices}
        for domain in {each.domain for each in shift.devices}:
            inside = [each for each in shift.devices if each.domain == domain]
            mean = np.average([changes[each.name] for each in inside], axis=0, weights=[len(e.data) for e in inside])
            self._move([each for each in self._devices if each.domain == domain], mean, ~self._helpers)
        self._move(self._devices, changes[shift.devices[0].name], self._helpers)
        shift.began = {each.name: self.version[each.name] for each in shift.devices}
        for each in shift.devices:
            self._fleet.give(each, self.version[each.name].astype(np.float32))

    def _move(self, devices: Sequence[Participant], change: NDArray[np.float64], entries: NDArray[np.bool_]) -> None:
        for each in devices:
            self.version[each.name] = self.version[each.name] + self._rate * change * entries

    @staticmethod
    def _holder_of(shifts: int, devices: Sequence[Participant]) -> Callable[[Participant, int, SplitPlan], str]:
        shift_of = {each.name: number % shifts for number, each in enumerate(devices)}

        def holder_of(participant: Participant, block: int, plan: SplitPlan) -> str:
            holder = by_cut(participant, block, plan)
            return f"{HELPER}-{shift_of[participant.name]}" if holder == HELPER else holder

        return holder_of
