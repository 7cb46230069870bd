"""Devices that call the same pictures by other names share all but the last layer, through kills, on a real broker."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent.shell.storage.device_database import DeviceDatabase
from fleet_protocol.codec import own_places, read_weights
from fleet_protocol.personal_plan import PersonalPlan
from tests.support.agent import AgentProcess, copy_digits_bundle, sample
from tests.support.broker import Broker
from tests.support.coordinator import CoordinatorProcess
from tests.support.waiting import until
from workbench.demo.audit import audit

NAMES = {"attic": 0, "barn": 0, "cellar": 1, "den": 1}
"""By how much a device's name for a digit is off."""
DIGITS = 10
MOST_ROUNDS = 8


class PersonalFleet:
    """Four devices of a task whose last layer is each device's own."""

    def __init__(self, folder: Path, broker: Broker) -> None:
        plan = PersonalPlan(parameters=("3.*",), first_steps=20)
        self.bundle = copy_digits_bundle(folder / "digits", personal=plan, buffer_size=len(NAMES))
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

    def label(self, agent: AgentProcess, number: int) -> int:
        return (number + NAMES[agent.name]) % DIGITS

    def round(self, *, killed: bool = False) -> None:
        """One of each device, and the version that comes of it; the devices of one half may be killed meanwhile."""
        before = self.version()
        for agent in self.agents:
            for number in range(DIGITS):
                assert agent.ask(sample(number) | {"label": self.label(agent, number)}) == {"ok": True}
        for agent in self.agents[::2] if killed else ():
            agent.kill()
            agent.start()
        until(lambda: self.version() > before, "all four updates make a version")

    def version(self) -> int:
        with self.coordinator.journal() as journal:
            return journal.newest_number("digits")

    def right(self, agent: AgentProcess) -> int:
        """How many digits it calls as its own samples do."""
        pictures = [{"inputs": sample(number)["inputs"]} for number in range(DIGITS)]
        found = [agent.ask({"command": "predict", "task": "digits", "reading": each}) for each in pictures]
        return sum(each["prediction"]["value"] == self.label(agent, place) for place, each in enumerate(found))


@pytest.fixture
def personal(tmp_path: Path, broker: Broker) -> Iterator[PersonalFleet]:
    fleet = PersonalFleet(tmp_path, broker)
    yield fleet
    fleet.end()


def test_each_device_learns_its_own_names_and_none_of_its_head_leaves_it(personal: PersonalFleet) -> None:
    fleet = personal
    fleet.round()
    fleet.round(killed=True)
    rounds = 0
    while rounds < MOST_ROUNDS and not all(fleet.right(agent) == DIGITS for agent in fleet.agents):
        fleet.round()
        rounds += 1
    assert [fleet.right(agent) for agent in fleet.agents] == [DIGITS] * len(NAMES)
    fleet.agents[0].kill()
    fleet.agents[0].start()
    assert fleet.right(fleet.agents[0]) == DIGITS
    for agent in fleet.agents:
        agent.stop()
    ledgers = {agent.name: agent.ledger() for agent in fleet.agents}
    task = fleet.bundle.description
    with fleet.coordinator.journal() as journal:
        verdict = audit(ledgers, list(journal.updates("digits")))
        newest = read_weights(journal.newest_version("digits").weights, task.parameters)
        first = read_weights(journal.version("digits", 0).weights, task.parameters)
    assert (verdict.lost, verdict.duplicated, verdict.rejected, verdict.waiting) == (0, 0, 0, 0)
    own = own_places(task)
    assert (newest[own] == first[own]).all()
    assert (newest[~own] != first[~own]).any()
    heads = [own_head(agent, fleet.bundle.hash) for agent in fleet.agents]
    assert all(heads)
    assert not set(heads[:2]) & set(heads[2:])
    verified = fleet.coordinator.tasks("verify", "digits")
    assert verified["equal"], verified
    assert "3.weight, 3.bias never leave a device" in fleet.coordinator.tasks("show", "digits")["personal"]


def own_head(agent: AgentProcess, bundle: str) -> bytes:
    database = DeviceDatabase(agent.folder / "state" / "agent.db")
    try:
        return database.own_model("digits", bundle)
    finally:
        database.close()
