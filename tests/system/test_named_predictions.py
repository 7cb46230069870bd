"""`edge-agent predict` for a task of named readings: a table's rows follow one another, one the device."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_agent.client import AgentClient
from tests.support.agent import AgentProcess
from tests.support.broker import Broker
from tests.support.coordinator import CoordinatorProcess
from tests.support.process import environment
from tests.support.waiting import until
from workbench.recipe_folder import find_bundle

READINGS: list[dict[str, Any]] = [
    {"time": 60 * minute, "temperature": 21, "humidity": 40, "light": 500, "carbon_dioxide": 900}
    for minute in range(1, 13)
]


@pytest.fixture
def agent(tmp_path: Path, broker: Broker) -> Iterator[AgentProcess]:
    coordinator = CoordinatorProcess(tmp_path / "coordinator", broker, [find_bundle("occupancy")])
    coordinator.start_serving()
    agent = AgentProcess(tmp_path / "pi", "pi", broker, coordinator.public_key)
    agent.configuration.write_text(agent.configuration.read_text().replace('"digits"', '"occupancy"'))
    agent.start()
    until(lambda: agent.status()["versions"] == {"occupancy": 0}, "the manifest has come")
    yield agent
    agent.kill()
    coordinator.kill()


def predict(agent: AgentProcess, *arguments: str) -> list[dict[str, Any]]:
    command = [sys.executable, "-P", "-m", "edge_agent.cli", "predict", "--config", str(agent.configuration), "--json"]
    found = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False, env=environment())
    assert found.stderr == ""
    return [json.loads(line) for line in found.stdout.splitlines()]


def test_table_is_predicted_by_windows_and_one_reading_by_what_the_device_read(
    agent: AgentProcess, tmp_path: Path
) -> None:
    assert agent.ask({"task": "occupancy", "reading": READINGS[0]})["ok"] is False
    until(lambda: "occupancy" in agent.status()["series"], "the description is fetched for the reading that came")

    table = tmp_path / "room.csv"
    rows = [",".join(READINGS[0]), *(",".join(map(str, reading.values())) for reading in READINGS)]
    table.write_text("\n".join(rows))
    answers = predict(agent, "--file", str(table))
    assert [each["error"] for each in answers[:9]] == [
        f"the window has {readings} of 10 readings; wait for the others" for readings in range(1, 10)
    ]
    assert len({json.dumps(each["prediction"]) for each in answers[9:]}) == 1

    with AgentClient(agent.socket) as client:
        for reading in READINGS[:9]:
            client.send_reading("occupancy", reading)
    (one,) = predict(agent, json.dumps(READINGS[9]))
    assert one["prediction"] == answers[9]["prediction"]
    assert agent.status()["series"] == {
        "occupancy": {"readings": 9, "window": 10, "waiting_for_label": 0, "unlabelled": 0}
    }
    agent.stop()
    agent.start()
    assert agent.status()["series"]["occupancy"]["readings"] == 9, "windows outlive the agent"
