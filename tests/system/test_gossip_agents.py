"""Eight devices learn a task among neighbours over a real broker, with no coordinator there, through kills."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from bundle_runtime.runner import BundleRunner, bundle_paths
from bundle_runtime.samples import Samples
from edge_agent.core.gossip.state import PeerState, read_state
from edge_agent.shell.storage.device_database import DeviceDatabase
from fleet_protocol.bundle_files import WEIGHTS_FILE
from fleet_protocol.codec import read_weights
from fleet_protocol.gossip_plan import GossipPlan
from tests.support.agent import AgentProcess, copy_digits_bundle
from tests.support.broker import Broker
from tests.support.coordinator import CoordinatorProcess
from tests.support.waiting import until
from workbench.data.digits import read_digits

NAMES = ("attic", "barn", "cellar", "den", "hall", "kitchen", "loft", "porch")
SAMPLES = 16
"""New ones of a round."""
ROUNDS = 9
SEEN = 4
"""Digits that a device has samples of."""
AGREED = 0.6
"""The consensus distance, in parts of the way that the mean model has come: it has been 0.4."""
MARGIN = 0.1
"""Between what a device that learns alone can reach, 0.4, and what each has reached here: 0.67 at least."""


class GossipingFleet:
    """Devices that have four neighbours each."""

    def __init__(self, folder: Path, broker: Broker) -> None:
        self.bundle = copy_digits_bundle(folder / "digits", gossip=GossipPlan("random"), max_staleness=10)
        self.broker = broker
        self.coordinator = CoordinatorProcess(folder / "coordinator", broker, [folder / "digits"])
        self.coordinator.start_serving()
        digits = read_digits()
        half = len(digits) // 2
        self.held_out = Samples(digits.inputs[half:], digits.labels[half:], 0)
        self._of = {
            name: np.flatnonzero((digits.labels[:half] - place) % 10 < SEEN) for place, name in enumerate(NAMES)
        }
        self._digits = digits
        self.begun = read_weights((folder / "digits" / WEIGHTS_FILE).read_bytes(), self.bundle.description.parameters)
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

    def needs_nobody(self, agent: AgentProcess) -> bool:
        """Whether it has all that it needs."""
        found = agent.status()["gossip"].get("digits", {})
        return found.get("is_complete", False) and found["devices"] == len(NAMES)

    def rounds(self, agent: AgentProcess) -> int:
        return int(agent.status().get("gossip", {}).get("digits", {}).get("rounds", 0))

    def round(self, *, killed: Sequence[AgentProcess] = ()) -> None:
        """One of each device; some are killed in it, and started again."""
        before = {agent.name: self.rounds(agent) for agent in self.agents}
        for agent in self.agents:
            self.feed(agent)
        for agent in killed:
            agent.kill()
            agent.start()
        for agent in self.agents:
            until(lambda agent=agent: self.rounds(agent) > before[agent.name], f"{agent.name} has ended a round")

    def states(self) -> dict[str, PeerState]:
        """Of devices that do not run."""
        states = {}
        for agent in self.agents:
            database = DeviceDatabase(agent.folder / "state" / "agent.db")
            known = database.known_version("digits")
            assert known is not None
            kept = database.gossip_states.read("digits", known.bundle)
            database.close()
            state = read_state(kept, self.bundle.description.parameter_count)
            assert state is not None
            states[agent.name] = state
        return states

    def accuracy(self, model: np.ndarray) -> float:
        found = self._runner.evaluate(model, self.held_out)
        assert found.accuracy is not None
        return found.accuracy

    def most_alone(self, name: str) -> float:
        """The accuracy of a device that knows all digits that it has seen: it can't name the others."""
        seen = np.unique(self._digits.labels[self._of[name]])
        return float(np.isin(self.held_out.labels, seen).mean())

    def answer(self, agent: AgentProcess, place: int) -> int:
        """What an agent calls a digit that nobody has learned from."""
        reading = {"inputs": self.held_out.inputs[place].tolist()}
        return int(agent.ask({"command": "predict", "task": "digits", "reading": reading})["prediction"]["value"])

    def predicted(self, model: np.ndarray, count: int) -> list[int]:
        """What a model calls the first of them."""
        scores = self._runner.predict(model, self.held_out.inputs[:count])
        return [int(each) for each in scores.argmax(axis=1)]


@pytest.fixture
def fleet(tmp_path: Path, broker: Broker) -> Iterator[GossipingFleet]:
    fleet = GossipingFleet(tmp_path, broker)
    yield fleet
    fleet.end()


def test_devices_learn_from_each_other_with_no_coordinator_through_kills(fleet: GossipingFleet) -> None:
    for agent in fleet.agents:
        until(lambda agent=agent: fleet.needs_nobody(agent), f"{agent.name} has bundle and roster, before any round")
    fleet.coordinator.kill()
    fleet.round()
    fleet.round()
    fleet.round(killed=fleet.agents[:2])
    fleet.broker.kill()
    fleet.broker.wipe()  # and with it what was retained: the roster too
    fleet.broker.start()
    for _ in range(ROUNDS - 3):
        fleet.round()
    answering, status = fleet.agents[0], fleet.agents[0].status()["gossip"]["digits"]
    answers = [fleet.answer(answering, place) for place in range(20)]
    for agent in fleet.agents:
        agent.stop()
    states = fleet.states()
    assert {state.head.rounds for state in states.values()} == {ROUNDS}, (
        "those that were killed lost no round, nor made two"
    )
    models = {name: np.frombuffer(state.model, np.float32) for name, state in states.items()}
    for name, model in models.items():
        assert fleet.accuracy(model) > fleet.most_alone(name) + MARGIN, name
    mean = np.mean(list(models.values()), axis=0)
    consensus_distance = np.sqrt(np.mean([np.square(model - mean).sum() for model in models.values()]))
    assert consensus_distance < AGREED * np.linalg.norm(mean - fleet.begun)
    assert answers == fleet.predicted(models[answering.name], 20), "with its own model"
    assert status["neighbours"].keys() == states[answering.name].copies.keys()
    assert all(known["rounds_ago"] <= 2 for known in status["neighbours"].values())
    assert status["refused"] == {}
