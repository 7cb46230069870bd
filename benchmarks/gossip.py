"""Gossip against a coordinator at equal bytes: `python -m benchmarks.gossip [--seeds 0 1] [--devices 16] [--hours 24]`.

Devices see unlike digits (Dirichlet 0.3), train as their samples come, and are always on; all fleets of a seed have the
same devices and samples. `coordinator` is the shipped digits task as it is; the others exchange models with neighbours
alone (docs/gossip.md), with that task's compression, and `whole` without any. Bytes are those of signed messages both
ways, without what a device is sent once, bundle and first weights. All are compared where they have sent as many as the
one that sends least does, and at their end. Prints a line for each fleet, and one JSON object as its last line.
"""

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from bundle_runtime.bundle import Bundle
from bundle_runtime.bundle_folder import load_bundle
from bundle_runtime.samples import Samples
from edge_agent.core.guards import GuardSettings
from fleet_protocol.gossip_plan import USED_BY, GossipPlan, MixingRule, TopologyName
from fleet_protocol.update_plan import WHOLE_UPDATES
from fleet_protocol.without_effect import with_used
from workbench.data.samples import FEWEST_SAMPLES, read_samples, share_out
from workbench.simulation.conditions import Conditions, FleetMember
from workbench.simulation.gossip.simulation import GossipSimulation
from workbench.simulation.simulation import Options, Simulation
from workbench.simulation.workload import Workload, trained_workload

DIGITS_BUNDLE: Final = Path("models/digits/bundle")
MEMBER: Final = FleetMember(
    Conditions(
        training_mflops=1000.0,
        start_seconds=5.0,
        uplink_kbit_s=1000.0,
        downlink_kbit_s=1000.0,
        latency_ms=20.0,
        samples_per_hour=240.0,
    ),
    GuardSettings(minimum_samples=FEWEST_SAMPLES),
)
WHOLE: Final = "ring, whole"
COORDINATOR: Final = "coordinator"
GOSSIP: Final[Mapping[str, tuple[TopologyName, MixingRule]]] = {
    "ring": ("ring", "mean"),
    "grid": ("grid", "mean"),
    "random": ("random", "mean"),
    "random, vote": ("random", "vote"),
    WHOLE: ("ring", "mean"),
}


@dataclass(frozen=True, slots=True)
class Moment:
    """A fleet at one moment: total `megabytes`, `rounds` of devices, and accuracies in per cent."""

    megabytes: float
    rounds: int
    accuracy: float
    worst_device: float


class Run(msgspec.Struct, frozen=True):
    """One fleet: at equal bytes, and at its end. With a coordinator, all devices have its model."""

    fleet: str
    seed: int
    at_equal_bytes: Moment
    at_end: Moment


@dataclass(frozen=True, slots=True)
class Field:
    """What all fleets of a seed have in common."""

    bundle: Bundle
    parts: Sequence[Samples]
    held_out: Samples
    options: Options

    def with_coordinator(self) -> list[Moment]:
        """Its history."""
        simulation = Simulation(self._members, self.bundle, self._workload(self.bundle), self.options)
        return [
            _moment(point.total_bytes - point.first_bytes, point.updates, point.score, point.score)
            for point in simulation.run().history
        ]

    def without(self, name: str) -> list[Moment]:
        """That of one of `GOSSIP`."""
        bundle = self.bundle
        if name == WHOLE:
            bundle = Bundle(msgspec.structs.replace(bundle.description, update=WHOLE_UPDATES), bundle.files)
        plan = with_used(GossipPlan(*GOSSIP[name], seed=self.options.seed), USED_BY)
        simulation = GossipSimulation(self._members, bundle, self._workload(bundle), self.options, plan)
        return [
            _moment(point.bytes_up + point.bytes_down, point.rounds, point.score, point.worst)
            for point in simulation.run().history
        ]

    @property
    def _members(self) -> list[FleetMember]:
        return [MEMBER] * len(self.parts)

    def _workload(self, bundle: Bundle) -> Workload:
        return trained_workload(DIGITS_BUNDLE, bundle.description, self.parts, self.held_out)


def field(devices: int, seed: int, hours: float) -> Field:
    """Digits, shared out."""
    bundle = load_bundle(DIGITS_BUNDLE)
    samples = read_samples("digits", bundle.description)
    options = Options(seed=seed, seconds=3600 * hours, score_every=devices)
    return Field(bundle, *share_out(samples, bundle.description, devices, seed), options)


def compared(shared: Field) -> list[Run]:
    """All fleets of a seed, with a line for each."""
    histories = {COORDINATOR: shared.with_coordinator()} | {name: shared.without(name) for name in GOSSIP}
    budget = min(history[-1].megabytes for history in histories.values())
    runs = []
    for name, history in histories.items():
        within = [moment for moment in history if moment.megabytes <= budget]
        runs.append(Run(name, shared.options.seed, within[-1], history[-1]))
        print(json.dumps(msgspec.to_builtins(runs[-1])), flush=True)
    return runs


def _moment(total_bytes: int, rounds: int, score: float, worst: float) -> Moment:
    return Moment(round(total_bytes / 1e6, 3), rounds, round(100 * score, 1), round(100 * worst, 1))


def main() -> None:
    """Run every fleet on every seed, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--devices", type=int, default=16)
    parser.add_argument("--hours", type=float, default=24.0)
    given = parser.parse_args()
    started = time.monotonic()
    runs = [run for seed in given.seeds for run in compared(field(given.devices, seed, given.hours))]
    about = {"data": "digits", "devices": given.devices, "hours": given.hours}
    wall = {"wall_seconds": round(time.monotonic() - started)}
    print(json.dumps(about | wall | {"runs": msgspec.to_builtins(runs)}))


if __name__ == "__main__":
    main()
