"""Eight devices learn a task among neighbours over a real broker, with no coordinator there, through kills."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from bundle_runtime.runner import BundleRunner, bundle_paths
from bundle_runtime.samples import Samples
from edge_agent.core.gossip.state import PeerState, read_state
from edge_agent.shell.storage.device_database import DeviceDatabase
from fleet_protocol.gossip_plan import GossipPlan
from tests.support.agent import AgentProcess, copy_digits_bundle
from tests.support.broker import Broker
from tests.support.coordinator import CoordinatorProcess
from tests.support.waiting import until
from workbench.data.digits import read_digits

NAMES = ("attic", "barn", "cellar", "den", "hall", "kitchen", "loft", "porch")
SAMPLES = 24
"""New ones of a round, of the digits that the device sees: two of ten."""
ROUNDS = 8


class GossipingFleet:
    """Devices in a ring, each of which sees two digits."""

    def __init__(self, folder: Path, broker: Broker) -> None:
        self.bundle = copy_digits_bundle(folder / "digits", gossip=GossipPlan("ring"), max_staleness=10)
        self.broker = broker
        self.coordinator = CoordinatorProcess(folder / "coordinator", broker, [folder / "digits"])
        self.coordinator.start_serving()
        digits = read_digits()
        half = len(digits) // 2
        self.held_out = Samples(digits.inputs[half:], digits.labels[half:], 0)
        self._of = {
            name: np.flatnonzero((digits.labels[:half] == place) | (digits.labels[:half] == (place + 3) % 10))
            for place, name in enumerate(NAMES)
        }
        self._digits = digits
        self._fed = dict.fromkeys(NAMES, 0)
        self._runner = BundleRunner(self.bundle.description, bundle_paths(folder / "digits", self.bundle.description))
        self.agents = [
            AgentProcess(folder / name, name, broker, self.coordinator.public_key, new_samples=SAMPLES)
            for name in NAMES
        ]
        for agent in self.agents:
            agent.start()

    def end(self) -> None:
        for process in (*self.agents, self.coordinator):
            process.kill()

    def feed(self, agent: AgentProcess) -> None:
        """What fires its trigger."""
        own = self._of[agent.name]
        for place in range(self._fed[agent.name], self._fed[agent.name] + SAMPLES):
            row = own[place % len(own)]
            inputs, label = self._digits.inputs[row].tolist(), int(self._digits.labels[row])
            assert agent.ask({"task": "digits", "inputs": inputs, "label": label}) == {"ok": True}
        self._fed[agent.name] += SAMPLES

    def rounds(self, agent: AgentProcess) -> int:
        return int(agent.status().get("gossip", {}).get("digits", {}).get("rounds", 0))

    def round(self) -> None:
        """One of each device."""
        before = {agent.name: self.rounds(agent) for agent in self.agents}
        for agent in self.agents:
            self.feed(agent)
        for agent in self.agents:
            until(lambda agent=agent: self.rounds(agent) > before[agent.name], f"{agent.name} has ended a round")

    def states(self) -> list[PeerState]:
        """Of devices that do not run."""
        states = []
        for agent in self.agents:
            database = DeviceDatabase(agent.folder / "state" / "agent.db")
            known = database.known_version("digits")
            assert known is not None
            kept = database.own_model("digits", known.bundle)
            database.close()
            state = read_state(kept, self.bundle.description.parameter_count)
            assert state is not None
            states.append(state)
        return states

    def accuracy(self, model: np.ndarray) -> float:
        found = self._runner.evaluate(model, self.held_out)
        assert found.accuracy is not None
        return found.accuracy


@pytest.fixture
def fleet(tmp_path: Path, broker: Broker) -> Iterator[GossipingFleet]:
    fleet = GossipingFleet(tmp_path, broker)
    yield fleet
    fleet.end()


def test_devices_learn_from_each_other_with_no_coordinator(fleet: GossipingFleet) -> None:
    fleet.round()
    fleet.coordinator.kill()
    for number in range(ROUNDS):
        fleet.round()
        print(number, [agent.status()["gossip"]["digits"]["rounds"] for agent in fleet.agents])
    for agent in fleet.agents:
        agent.stop()
    models = [np.frombuffer(state.model, np.float32) for state in fleet.states()]
    print([fleet.accuracy(model) for model in models])
    print(fleet.accuracy(np.mean(models, axis=0)))
    print(fleet.agents[0].log()[-3000:])
    assert 0
