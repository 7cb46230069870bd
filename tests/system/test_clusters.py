"""Two clusters that call the same pictures by other names: each learns its own, through kills, over a real broker."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from broker_coordinator.storage.chosen_clusters import chosen_clusters
from broker_coordinator.storage.cluster_registry import ClusterRegistry
from broker_coordinator.storage.journal import Journal
from broker_coordinator.storage.task_registry import TaskRegistry
from fleet_protocol.cluster_plan import ClusterPlan
from fleet_protocol.codec import read_model
from tests.support.agent import AgentProcess, copy_digits_bundle, sample
from tests.support.broker import Broker
from tests.support.coordinator import CoordinatorProcess
from tests.support.split_fleet import SplitFleet
from tests.support.waiting import until
from workbench.demo.audit import audit

NAMES = {"attic": 1, "barn": 1, "cellar": 2, "den": 2}
DIGITS = 10
MOST_ROUNDS = 8


class ClusteredFleet:
    """Four devices of a task with copies of all parameters, of which the second two call each digit the next one."""

    def __init__(self, folder: Path, broker: Broker, plan: ClusterPlan) -> None:
        copy_digits_bundle(folder / "digits", clusters=plan, buffer_size=len(NAMES))
        self.coordinator = CoordinatorProcess(folder / "coordinator", broker, [folder / "digits"])
        self.coordinator.start_serving()
        self.agents = [
            AgentProcess(folder / name, name, broker, self.coordinator.public_key, new_samples=DIGITS) for name in NAMES
        ]
        for agent in self.agents:
            agent.start()

    def end(self) -> None:
        for process in (*self.agents, self.coordinator):
            process.kill()

    def feed(self, agent: AgentProcess) -> None:
        """Each digit once."""
        for number in range(DIGITS):
            assert agent.ask(sample(number) | {"label": self.label(agent, number)}) == {"ok": True}

    def label(self, agent: AgentProcess, number: int) -> int:
        return (number + NAMES[agent.name] - 1) % DIGITS

    def round(self) -> None:
        """One of each device, and the version that comes of it."""
        before = self.version()
        for agent in self.agents:
            self.feed(agent)
        until(lambda: self.version() > before, "all four updates make a version")

    def killed_round(self) -> None:
        """One in which the coordinator and two devices are killed when the first update is made."""
        before, accepted = self.version(), self.agents[0].status()["accepted_updates"]
        for agent in self.agents:
            self.feed(agent)
        first = self.agents[0]
        until(lambda: first.status()["waiting_updates"] or first.status()["accepted_updates"] > accepted, "it is made")
        self.coordinator.kill()
        for agent in self.agents[::2]:
            agent.kill()
            agent.start()
        self.coordinator.start_serving()
        until(lambda: self.version() > before, "all four updates make a version all the same")

    def version(self) -> int:
        with self.coordinator.journal() as journal:
            return journal.newest_number("digits")

    def right(self, agent: AgentProcess) -> int:
        """How many digits it calls as its own cluster does."""
        pictures = [{"inputs": sample(number)["inputs"]} for number in range(DIGITS)]
        found = [agent.ask({"command": "predict", "task": "digits", "reading": each}) for each in pictures]
        return sum(each["prediction"]["value"] == self.label(agent, place) for place, each in enumerate(found))


@pytest.fixture
def clustered(tmp_path: Path, broker: Broker) -> Iterator[ClusteredFleet]:
    fleet = ClusteredFleet(tmp_path, broker, ClusterPlan(2))
    yield fleet
    fleet.end()


@pytest.fixture
def choosing(tmp_path: Path, broker: Broker) -> Iterator[ClusteredFleet]:
    fleet = ClusteredFleet(tmp_path, broker, ClusterPlan(2, found_by="devices"))
    yield fleet
    fleet.end()


def test_each_cluster_learns_its_own_names_and_every_version_replays_after_kills(clustered: ClusteredFleet) -> None:
    fleet = clustered
    with Journal.open(fleet.coordinator.database) as journal:
        ClusterRegistry(journal.engine).assign(TaskRegistry(journal.engine).bundle("digits").description, NAMES)
    fleet.round()  # contradictory names for one model, and receipts that say who is in which cluster
    assert {each.name: each.status()["clusters"]["digits"] for each in fleet.agents} == NAMES
    fleet.killed_round()
    rounds = 0
    while rounds < MOST_ROUNDS and not all(fleet.right(agent) == DIGITS for agent in fleet.agents):
        fleet.round()
        rounds += 1
    assert [fleet.right(agent) for agent in fleet.agents] == [DIGITS] * len(NAMES)
    for agent in fleet.agents:
        agent.stop()
    ledgers = {agent.name: agent.ledger() for agent in fleet.agents}
    with fleet.coordinator.journal() as journal:
        verdict = audit(ledgers, list(journal.updates("digits")))
    assert (verdict.lost, verdict.duplicated, verdict.rejected, verdict.waiting) == (0, 0, 0, 0)
    verified = fleet.coordinator.tasks("verify", "digits")
    assert verified["equal"], verified
    assert verified["compared"] == fleet.version()


def test_devices_choose_copies_and_keep_them_through_kills(choosing: ClusteredFleet) -> None:
    fleet = choosing
    fleet.killed_round()
    kept = {agent.name: agent.status()["clusters"]["digits"] for agent in fleet.agents}
    assert set(kept.values()) <= {1, 2}
    with fleet.coordinator.journal() as journal:
        assert chosen_clusters(journal.engine, "digits") == kept
        rows = list(journal.updates("digits"))
    for agent in fleet.agents:
        agent.stop()
    verdict = audit({agent.name: agent.ledger() for agent in fleet.agents}, rows)
    assert (verdict.lost, verdict.duplicated, verdict.rejected, verdict.waiting) == (0, 0, 0, 0)
    assert fleet.coordinator.tasks("verify", "digits")["equal"]


@pytest.mark.long
def test_a_helper_trains_each_clusters_copy_for_devices_of_that_cluster(fleet: SplitFleet) -> None:
    task = fleet.begin(steps=4, buffer_size=2, clusters=ClusterPlan(2, ("*",))).description
    with Journal.open(fleet.coordinator.database) as journal:
        ClusterRegistry(journal.engine).assign(task, {"kitchen": 1, "attic": 2})
    helper = fleet.helper("cellar-pi")
    agents = [fleet.agent(name) for name in ("kitchen", "attic")]
    for number in range(1, 4):
        until(lambda n=number: fleet.versions() >= n, "the next version is made")
        for agent in agents:
            agent.feed(4, first=12 + 4 * number)
    verdict = fleet.audited()
    assert (verdict.lost, verdict.duplicated, verdict.rejected) == (0, 0, 0)
    with fleet.coordinator.journal() as journal:
        rows = list(journal.updates(task.task))
        newest = journal.newest_version(task.task)
        first = journal.version(task.task, 0).weights
    assert helper.name in {row.device for row in rows}
    middle = np.repeat([each.block == 1 for each in task.parameters], [each.size for each in task.parameters])
    kitchen, attic = (read_model(newest.weights, task, each) - read_model(first, task, each) for each in (1, 2))
    for part in (middle, ~middle):
        assert kitchen[part].any() and attic[part].any()
        assert not np.isclose(kitchen[part], attic[part]).all()
    verified = fleet.coordinator.tasks("verify", task.task)
    assert verified["equal"], verified
