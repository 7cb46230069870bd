"""Split learning with every program as it ships: a coordinator with its relay, helpers, and devices."""

import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from bundle_runtime.bundle import Bundle
from tests.support.broker import Broker, free_port
from tests.support.coordinator import CoordinatorProcess
from tests.support.cut_link import CutLink
from tests.support.helper import TASK, HelperProcess, SplitAgent, copy_split_bundle
from tests.support.waiting import DEADLINE_SECONDS, until
from workbench.demo.audit import Audit, audit, read_ledger


class SplitFleet:
    """A coordinator that serves one task, and the helpers and devices that a test starts."""

    def __init__(self, folder: Path, broker: Broker) -> None:
        self._folder = folder
        self._broker = broker
        self.coordinator: CoordinatorProcess
        self.helpers: list[HelperProcess] = []
        self.agents: list[SplitAgent] = []

    def begin(self, *, steps: int, buffer_size: int, batch_size: int = 8) -> Bundle:
        """Start the coordinator. Returns what it serves."""
        folder = self._folder / TASK
        bundle = copy_split_bundle(folder, steps=steps, batch_size=batch_size, buffer_size=buffer_size)
        self._metrics_port = free_port()
        more = f"[relay]\nmetrics_port = {self._metrics_port}\n"
        self.coordinator = CoordinatorProcess(self._folder / "coordinator", self._broker, [folder], more=more)
        self.coordinator.start_serving()
        until(lambda: "relay_connected" in self.coordinator.log(), "the relay has reached the broker")
        return bundle

    def helper(self, name: str) -> HelperProcess:
        """One that offers a version, and that the relay has for devices."""
        others = self.relay_counts("edgeflock_helpers")[""]
        helper = HelperProcess(self._folder / name, name, self._broker, self.coordinator.public_key)
        self.helpers.append(helper)
        self.coordinator.helpers("allow", name)
        helper.serve()
        until(lambda: self.relay_counts("edgeflock_helpers")[""] > others, f"the relay knows {name}")
        return helper

    def agent(
        self, name: str, broker: Broker | CutLink | None = None, *, samples: int = 16, **options: Any
    ) -> SplitAgent:
        """A device that leaves the middle to a helper, and that has samples, of which four are enough for a round."""
        agent = SplitAgent(self._folder / name, name, broker or self._broker, self.coordinator.public_key, **options)
        self.agents.append(agent)
        agent.start()
        agent.feed(samples)
        return agent

    def versions(self) -> int:
        """The newest one's number."""
        with self.coordinator.journal() as journal:
            newest = journal.newest_version(TASK)
        return newest.number if newest else -1

    def relay_counts(self, metric: str) -> Counter[str]:
        """A metric of the relay by its label; by "" where it has none."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self._metrics_port}/metrics", timeout=DEADLINE_SECONDS) as page:
            families = text_string_to_metric_families(page.read().decode())
        samples = [each for family in families for each in family.samples if each.name == metric]
        return Counter({next(iter(each.labels.values()), ""): int(each.value) for each in samples})

    def audited(self) -> Audit:
        """The verdict on all updates, once every device and helper has ended."""
        for each in (*self.agents, *self.helpers):
            each.stop()
        ledgers = {each.name: read_ledger(each.folder / "state" / "agent.db") for each in (*self.agents, *self.helpers)}
        with self.coordinator.journal() as journal:
            return audit(ledgers, list(journal.updates(TASK)))

    def end(self) -> None:
        """Kill all."""
        for each in (*self.agents, *self.helpers, self.coordinator):
            each.kill()
