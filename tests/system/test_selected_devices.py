"""Devices that select themselves on a real broker: some wait for a later version, all of them have their turn, and
kills of both sides change nothing.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent.shell.storage.device_database import DeviceDatabase
from fleet_protocol.selection_plan import SelectionPlan
from tests.support.agent import AgentProcess, copy_digits_bundle
from tests.support.broker import Broker
from tests.support.coordinator import CoordinatorProcess
from tests.support.waiting import until
from workbench.demo.audit import audit

NAMES = ("attic", "barn", "cellar", "den", "eaves", "foyer")
NEW_SAMPLES = 4
PLAN = SelectionPlan(share=0.3, exploration=0.0, fairness=0.0, patience_seconds=3.0)


class SelectingFleet:
    """Six devices, of which three are asked for a version, after six that ask everybody."""

    def __init__(self, folder: Path, broker: Broker) -> None:
        self.bundle = copy_digits_bundle(folder / "digits", selection=PLAN, buffer_size=2, strategy="fedbuff")
        self.coordinator = CoordinatorProcess(folder / "coordinator", broker, [folder / "digits"])
        self.coordinator.start_serving()
        self.agents = [
            AgentProcess(folder / name, name, broker, self.coordinator.public_key, new_samples=NEW_SAMPLES)
            for name in NAMES
        ]
        for agent in self.agents:
            agent.start()

    def end(self) -> None:
        for process in (*self.agents, self.coordinator):
            process.kill()

    def updates(self) -> int:
        with self.coordinator.journal() as journal:
            return sum(1 for _ in journal.updates("digits"))

    def feed(self, round_number: int) -> None:
        for place, agent in enumerate(self.agents):
            agent.feed(NEW_SAMPLES, first=NEW_SAMPLES * round_number + place)


@pytest.fixture
def fleet(tmp_path: Path, broker: Broker) -> Iterator[SelectingFleet]:
    made = SelectingFleet(tmp_path, broker)
    yield made
    made.end()


def test_devices_wait_for_their_turn_and_have_it(fleet: SelectingFleet) -> None:
    fleet.feed(0)
    until(lambda: fleet.updates() == len(NAMES), "everybody trains at first")
    for round_number in (1, 2, 3, 4):
        fleet.feed(round_number)
        if round_number == 4:
            fleet.coordinator.kill()
            fleet.agents[0].kill()
            fleet.coordinator.start_serving()
            fleet.agents[0].start()
        wanted = len(NAMES) * (round_number + 1)
        until(lambda wanted=wanted: fleet.updates() >= wanted, "everybody has a turn at last")
    logs = [(agent.folder / "agent.log").read_text() for agent in fleet.agents]
    assert any("not_selected" in log and "asks for a utility of" in log for log in logs)
    for agent in fleet.agents:
        agent.stop()
    ledgers = {agent.name: agent.ledger() for agent in fleet.agents}
    with fleet.coordinator.journal() as journal:
        verdict = audit(ledgers, list(journal.updates("digits")))
    assert (verdict.lost, verdict.duplicated, verdict.rejected) == (0, 0, 0)
    for agent in fleet.agents:
        database = DeviceDatabase(agent.folder / "state" / "agent.db")
        figures = database.round_figures("digits", fleet.bundle.hash)
        database.close()
        assert figures is not None
        assert figures.updates >= 2
        assert figures.seconds > 0
    verified = fleet.coordinator.tasks("verify", "digits")
    assert verified["equal"], verified
    assert fleet.coordinator.tasks("show", "digits")["selection"] == "utility: 0.3 of the devices train for a version"
