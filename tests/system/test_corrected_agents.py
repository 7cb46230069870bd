"""Two agents that correct their drift on a real broker, one of them killed: what each keeps is of its last update."""

from pathlib import Path

import msgspec
import numpy as np
import pytest

from bundle_runtime.bundle_folder import load_bundle
from edge_agent.shell.storage.device_database import DeviceDatabase
from edge_agent.training.client_drift.steering import DriftMemory
from edge_agent.training.compression import unpack
from fleet_protocol.bundle_files import DESCRIPTION_FILE
from fleet_protocol.codec import HeldBlocks, read_weights
from fleet_protocol.envelope import read_envelope
from fleet_protocol.kinds import Update, decode_payload
from fleet_protocol.limits import MAX_UPDATE_BYTES
from fleet_protocol.update_plan import UpdatePlan
from tests.support.agent import AgentProcess, sample
from tests.support.broker import Broker
from tests.support.coordinator import CoordinatorProcess
from tests.support.drift_task import correcting_bundle
from tests.support.waiting import until
from workbench.demo.audit import audit

DIGITS = {"attic": (0, 1), "barn": (2, 3)}
SAMPLES = 10


class CorrectingFleet:
    """Two agents of a task that corrects drift; a version is made of an update of each."""

    def __init__(self, folder: Path, broker: Broker) -> None:
        bundle = correcting_bundle(folder / "digits", maximum_epochs=0, validation_share=0.0)
        aggregation = msgspec.structs.replace(
            bundle.description.aggregation, strategy="fedbuff", buffer_size=2, server_momentum=0.0
        )
        self.task = msgspec.structs.replace(
            bundle.description, update=UpdatePlan(1.0, "float32", "dense"), aggregation=aggregation
        )
        (folder / "digits" / DESCRIPTION_FILE).write_bytes(msgspec.json.encode(self.task))
        self.bundle = load_bundle(folder / "digits").hash
        self.coordinator = CoordinatorProcess(folder / "coordinator", broker, [folder / "digits"])
        self.coordinator.start_serving()
        key = self.coordinator.public_key
        self.agents = [AgentProcess(folder / name, name, broker, key, new_samples=SAMPLES) for name in DIGITS]
        for agent in self.agents:
            agent.start()

    def round(self) -> None:
        """One of each agent, and the version that comes of both."""
        before = self.version()
        for agent in self.agents:
            for number in range(SAMPLES):
                assert agent.ask(sample(DIGITS[agent.name][number % 2])) == {"ok": True}
        until(lambda: self.version() > before, "both updates make a version")

    def version(self) -> int:
        with self.coordinator.journal() as journal:
            return journal.newest_number("digits")

    def sent(self, agent: AgentProcess) -> tuple[int, np.ndarray, int]:
        """Of its last update: the version that it began with, the change of the weights, and how many steps made it."""
        with self.coordinator.journal() as journal:
            row = [each for each in journal.updates("digits") if each.device == agent.name][-1]
        update = decode_payload(read_envelope(row.envelope, MAX_UPDATE_BYTES).payload, Update)
        delta = np.zeros(self.task.trained_count, np.float32)
        unpack(update.packed, HeldBlocks.of(self.task, ())).add_to(delta)
        return row.base_version, delta, update.steps

    def kept(self, agent: AgentProcess) -> np.ndarray:
        """Its control variate. Only while it does not run."""
        database = DeviceDatabase(agent.folder / "state" / "agent.db")
        try:
            kept = database.drift_memory("digits", self.bundle, 0)
        finally:
            database.close()
        return np.frombuffer(msgspec.msgpack.decode(kept, type=DriftMemory).variate, np.float32)

    def weights(self, number: int) -> np.ndarray:
        with self.coordinator.journal() as journal:
            return read_weights(journal.version("digits", number).weights, self.task.parameters)


@pytest.fixture
def fleet(tmp_path: Path, broker: Broker):
    made = CorrectingFleet(tmp_path, broker)
    yield made
    for process in (*made.agents, made.coordinator):
        process.kill()


def test_each_keeps_the_gradient_of_its_last_update_and_is_corrected_by_where_the_fleet_moved(fleet: CorrectingFleet):
    rate = fleet.task.training.learning_rate
    fleet.round()
    before = {}
    for agent in fleet.agents:
        agent.kill()
        base, delta, steps = fleet.sent(agent)
        assert base == 0
        before[agent.name] = fleet.kept(agent)
        np.testing.assert_allclose(before[agent.name], -delta / (rate * steps), rtol=1e-4, atol=1e-6)
        agent.start()
    fleet.round()
    for agent in fleet.agents:
        agent.stop()
        base, delta, steps = fleet.sent(agent)
        assert base == 1
        added = -delta / (rate * steps) - fleet.kept(agent)
        moved = (fleet.weights(0) - fleet.weights(1)) / (rate * steps)
        wanted = moved - before[agent.name]
        assert np.linalg.norm(added) > 1e-3, "the second round is corrected"
        assert added @ wanted > 0.999 * np.linalg.norm(added) * np.linalg.norm(wanted)
    ledgers = {agent.name: agent.ledger() for agent in fleet.agents}
    with fleet.coordinator.journal() as journal:
        verdict = audit(ledgers, list(journal.updates("digits")))
    assert (verdict.lost, verdict.duplicated, verdict.rejected, verdict.waiting) == (0, 0, 0, 0)
