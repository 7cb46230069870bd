"""A task that awaits its scale, over a real Mosquitto: statistics, the fleet's scale, and updates made with it."""

import re
from pathlib import Path

import pytest

from broker_coordinator.storage.task_registry import TaskRegistry
from tests.support.agent import AgentProcess
from tests.support.broker import Broker
from tests.support.coordinator import CoordinatorProcess
from tests.support.tables import export_table_bundle, reading
from tests.support.waiting import until

SAMPLES = 8


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recipe")
    export_table_bundle(folder)
    return folder / "bundle"


def test_devices_tell_how_their_samples_are_distributed_and_train_once_the_fleet_has_a_scale(
    tmp_path: Path, broker: Broker, bundle: Path
) -> None:
    coordinator = CoordinatorProcess(tmp_path / "coordinator", broker, [bundle])
    coordinator.start_serving()
    agents = [
        AgentProcess(tmp_path / name, name, broker, coordinator.public_key, encrypt=name == "attic")
        for name in ("kitchen", "garden", "attic")
    ]
    try:
        for place, agent in enumerate(agents):
            agent.start()
            for number in range(SAMPLES):
                assert agent.ask(reading(number, factor=1000.0 if place == 1 else 1.0)) == {"ok": True}
        until(lambda: "event=scale_made" in coordinator.log(), "the fleet has its scale")
        kitchen, garden, attic = agents
        for agent in (kitchen, attic):
            until(lambda agent=agent: agent.status().get("accepted_updates", 0) >= 2, "an update with the scale")
        until(lambda: "its unit is another; nothing is trained" in garden.log(), "the one with other units is told")
        with coordinator.journal() as journal:
            until(lambda: journal.newest_number("digits") == 2, "they make a version of the new generation")
            updates = list(journal.updates("digits"))
            scaling = TaskRegistry(journal.engine).bundle("digits").description.scaling
    finally:
        for agent in agents:
            agent.kill()
        coordinator.kill()
    assert {row.base_version for row in updates} == {1}, "nothing was trained before"
    assert scaling.inputs is not None and scaling.targets is not None
    assert scaling.inputs.mean == pytest.approx([102_000, 21.5, 0.44], rel=0.05), "of the two whose units are alike"
    assert not scaling.is_awaited
    said = re.findall(r"event=units_differ .*device=(\S+)", coordinator.log())
    assert said == ["garden"]
    assert "event=generation_followed" in agents[0].log()
