"""Split learning with every program as it ships: a coordinator with its relay, helpers, and devices."""

import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any, TypeVar

from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import func, select

from broker_coordinator.storage.cluster_registry import ClusterRegistry
from broker_coordinator.storage.database import reading
from broker_coordinator.storage.device_registry import DeviceRegistry
from broker_coordinator.storage.helper_registry import HelperRegistry
from broker_coordinator.storage.journal import Journal
from broker_coordinator.storage.schema import payloads
from bundle_runtime.bundle import Bundle
from bundle_runtime.bundle_folder import load_bundle
from fleet_protocol.cluster_plan import ClusterPlan
from fleet_protocol.keys import SigningKey
from fleet_protocol.kinds import ACTIVATION_SUMMARY
from tests.support.broker import Broker, free_port
from tests.support.coordinator import CoordinatorProcess
from tests.support.cut_link import CutLink
from tests.support.helper import TASK, HelperProcess, SplitAgent, copy_split_bundle
from tests.support.session_members import Member
from tests.support.waiting import DEADLINE_SECONDS, until
from workbench.demo.audit import Audit, audit, read_ledger

AnyMember = TypeVar("AnyMember", bound=Member)


class SplitFleet:
    """A coordinator that serves one task, and the helpers and devices that a test starts."""

    def __init__(self, folder: Path, broker: Broker) -> None:
        self._folder = folder
        self._broker = broker
        self.task = TASK
        self.coordinator: CoordinatorProcess
        self.helpers: list[HelperProcess] = []
        self.agents: list[SplitAgent] = []
        self.members: list[Member] = []

    def begin(
        self, *, steps: int, buffer_size: int, batch_size: int = 8, clusters: ClusterPlan | None = None
    ) -> Bundle:
        """Start the coordinator with the small task. Returns what it serves."""
        folder = self._folder / TASK
        copy_split_bundle(folder, steps=steps, batch_size=batch_size, clusters=clusters, buffer_size=buffer_size)
        return self.serve(folder)

    def serve(self, folder: Path) -> Bundle:
        """Start the coordinator with the bundle in a folder, which is returned."""
        bundle = load_bundle(folder)
        self.task = bundle.description.task
        self._metrics_port = free_port()
        more = f"[relay]\nmetrics_port = {self._metrics_port}\n"
        self.coordinator = CoordinatorProcess(self._folder / "coordinator", self._broker, [folder], more=more)
        self.coordinator.start_serving()
        until(lambda: "relay_connected" in self.coordinator.log(), "the relay has reached the broker")
        return bundle

    def helper(self, name: str, **options: Any) -> HelperProcess:
        """One that offers a version, and that the relay has for devices."""
        others = self.relay_counts("edgeflock_helpers")[""]
        options = {"task": self.task} | options
        helper = HelperProcess(self._folder / name, name, self._broker, self.coordinator.public_key, **options)
        self.helpers.append(helper)
        self.coordinator.helpers("allow", name)
        helper.serve()
        until(lambda: self.relay_counts("edgeflock_helpers")[""] > others, f"the relay knows {name}")
        return helper

    def agent(
        self, name: str, broker: Broker | CutLink | None = None, *, samples: int = 16, **options: Any
    ) -> SplitAgent:
        """A device that leaves the middle to a helper, and that has samples, of which four are enough for a round."""
        options = {"task": self.task} | options
        agent = SplitAgent(self._folder / name, name, broker or self._broker, self.coordinator.public_key, **options)
        self.agents.append(agent)
        agent.start()
        agent.feed(samples)
        return agent

    def member(self, shape: type[AnyMember], name: str, *, is_helper: bool = False, **options: Any) -> AnyMember:
        """An approved device or helper that a test speaks for."""
        key = SigningKey.generate()
        with Journal.open(self.coordinator.database) as journal:
            DeviceRegistry(journal.engine).approve(name, key.verify_key)
            if is_helper:
                HelperRegistry(journal.engine).allow(name)
        member = shape(name, self._broker, self.coordinator.public_key, key, **options)
        self.members.append(member)
        return member

    def versions(self) -> int:
        """The newest one's number."""
        with self.coordinator.journal() as journal:
            newest = journal.newest_version(self.task)
        return newest.number if newest else -1

    def summaries(self) -> int:
        """What helpers have said of devices' activations, and the coordinator has made an aggregate of."""
        with self.coordinator.journal() as journal:
            return journal.newest_aggregate(self.task, ACTIVATION_SUMMARY.number).number

    def clusters(self) -> dict[str, int]:
        """Of the devices that are in one."""
        with self.coordinator.journal() as journal:
            return ClusterRegistry(journal.engine).assigned().get(self.task, {})

    def accepted(self) -> int:
        """Updates of devices and helpers."""
        with self.coordinator.journal() as journal:
            return journal.overview.update_counts(self.task)[0]

    def accepted_of_devices(self) -> int:
        """The same of the agents alone."""
        names = [each.name for each in self.agents]
        query = select(func.count()).where(payloads.c.task == self.task, payloads.c.device.in_(names))
        with self.coordinator.journal() as journal, reading(journal.engine) as connection:
            return connection.scalar(query) or 0

    def relay_counts(self, metric: str) -> Counter[str]:
        """A metric of the relay by its label; by "" where it has none."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self._metrics_port}/metrics", timeout=DEADLINE_SECONDS) as page:
            families = text_string_to_metric_families(page.read().decode())
        samples = [each for family in families for each in family.samples if each.name == metric]
        return Counter({next(iter(each.labels.values()), ""): int(each.value) for each in samples})

    def audited(self) -> Audit:
        """The verdict on all that was sent to count, once every device and helper has ended."""
        for each in (*self.agents, *self.helpers):
            each.stop()
        ledgers = {each.name: read_ledger(each.folder / "state" / "agent.db") for each in (*self.agents, *self.helpers)}
        with self.coordinator.journal() as journal:
            return audit(ledgers, list(journal.payloads(self.task)))

    def end(self) -> None:
        """Kill all."""
        for each in (*self.agents, *self.helpers, self.coordinator):
            each.kill()
        for member in self.members:
            member.close()
