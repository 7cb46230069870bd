"""One run of a fleet: it trains to a version, whatever disturbs it, and its books are audited."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.live_gans.disturbances import PATIENCE_SECONDS, Disturbance
from benchmarks.live_gans.judging import Judged, Judges
from benchmarks.split_gans.scenario import Participant
from bundle_runtime.bundle import Bundle
from edge_agent.client import AgentClient
from tests.support.broker import Broker
from tests.support.split_fleet import SplitFleet
from tests.support.waiting import until
from workbench.demo.audit import Audit

HELPER = "helper"
WORKER = "memory_limit_mib = 1024\ntime_limit_seconds = 1800"

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Result:
    """Of a run: `clusters` by device at its end, the same `found_right` where each domain has one of its own."""

    disturbances: Sequence[str]
    seed: int
    versions: int
    domains: dict[str, Judged]
    clusters: dict[str, int]
    found_right: bool
    updates: int
    helper_updates: int
    audit: Audit
    seconds: float


@dataclass(frozen=True, slots=True)
class LiveRun:
    """`bundle` lies in `bundle_folder`; devices train until so many `rounds` of theirs are accepted, all together."""

    bundle: Bundle
    bundle_folder: Path
    devices: Sequence[Participant]
    rounds: int
    seed: int
    tell: Tell

    def run(self, folder: Path, judges: Judges, disturbances: Sequence[Disturbance]) -> Result:
        """Start everything, train, end everything, judge.

        Raises:
            AssertionError: something did not come about for ten minutes; says what.
        """
        broker = Broker(folder / "broker")
        broker.start()
        fleet = SplitFleet(folder, broker)
        try:
            began = time.monotonic()
            self._begin(fleet)
            self._train(fleet, broker, disturbances)
            seconds = time.monotonic() - began
            return self._concluded(fleet, judges, disturbances, seconds)
        finally:
            fleet.end()
            broker.kill()

    def _begin(self, fleet: SplitFleet) -> None:
        """The helper comes last: no device trains before all have their pictures."""
        fleet.serve(self.bundle_folder)
        for device in self.devices:
            agent = fleet.agent(
                device.name,
                samples=0,
                cut=device.cut,
                worker=WORKER,
                new_version=True,
                minimum_samples=len(device.data),
            )
            with AgentClient(agent.socket) as client:
                for picture, digit in zip(device.data.pictures, device.data.classes, strict=True):
                    client.send(self.bundle.description.task, {"picture": picture.tolist(), "digit": [int(digit)]})
        fleet.helper(HELPER)

    def _train(self, fleet: SplitFleet, broker: Broker, disturbances: Sequence[Disturbance]) -> None:
        due = {self.rounds * (place + 1) // (len(disturbances) + 1): each for place, each in enumerate(disturbances)}
        for number in range(1, self.rounds + 1):
            until(partial(_has_rounds, fleet, number), f"round {number} is accepted", PATIENCE_SECONDS)
            self.tell(f"round {number} of {self.rounds}, version {fleet.versions()}, clusters {fleet.clusters()}")
            if disturbance := due.get(number):
                self.tell(f"{disturbance.__doc__}")
                disturbance(fleet, broker)

    def _concluded(
        self, fleet: SplitFleet, judges: Judges, disturbances: Sequence[Disturbance], seconds: float
    ) -> Result:
        verdict = fleet.audited()
        clusters = fleet.clusters()
        task = self.bundle.description.task
        with fleet.coordinator.journal() as journal:
            judged = judges.judged(journal, self.bundle, self.devices, clusters, seed=self.seed)
            versions = journal.newest_number(task)
            senders = [row.device for row in journal.updates(task)]
        return Result(
            [each.__name__ for each in disturbances],
            self.seed,
            versions,
            judged,
            clusters,
            self._is_right(clusters),
            len(senders),
            senders.count(HELPER),
            verdict,
            round(seconds, 1),
        )

    def _is_right(self, clusters: dict[str, int]) -> bool:
        """Whether each domain has one cluster, and none with another domain."""
        by_domain = {
            each.domain: {clusters.get(other.name, 0) for other in self.devices if other.domain == each.domain}
            for each in self.devices
        }
        found = [cluster for domain in by_domain.values() for cluster in domain]
        return len(found) == len(set(found)) == len(by_domain) and 0 not in found


def _has_rounds(fleet: SplitFleet, number: int) -> bool:
    return fleet.accepted_of_devices() >= number
