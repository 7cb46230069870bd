"""Agents tell prompts once, the server learns of them, and devices go on from there; over a real Mosquitto."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from fleet_protocol.kinds import PROMPTS
from fleet_protocol.prompt_plan import PromptPlan
from tests.support.agent import AgentProcess, copy_digits_bundle
from tests.support.broker import Broker
from tests.support.coordinator import CoordinatorProcess
from tests.support.process import environment
from tests.support.waiting import until

SAMPLES = 40


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("task") / "bundle"
    copy_digits_bundle(folder, prompts=PromptPlan("moments", rounds=True), buffer_size=2)
    return folder


def generate(coordinator: CoordinatorProcess, folder: Path, *options: str) -> dict:
    command = ["generate", "--config", str(coordinator.configuration), "digits", str(folder), *options, "--json"]
    done = subprocess.run(
        [sys.executable, "-P", "-m", "broker_coordinator.cli", *command],
        capture_output=True,
        check=True,
        env=environment(),
    )
    assert b"features for digits" in done.stderr
    return json.loads(done.stdout)


def kinds_of(coordinator: CoordinatorProcess) -> list[int]:
    with coordinator.journal() as journal:
        return [row.kind for row in journal.payloads("digits")]


def trains_from_newer(agent: AgentProcess) -> bool:
    """Ask for a round, for which the agent looks for the newest version; whether that is not the first one."""
    agent.ask({"command": "train"})
    return agent.status()["versions"]["digits"] >= 1


def test_prompts_told_once_make_a_version_that_devices_train_on_from(
    tmp_path: Path, broker: Broker, bundle: Path
) -> None:
    coordinator = CoordinatorProcess(tmp_path / "coordinator", broker, [bundle])
    coordinator.start_serving()
    owners = {"attic": "moments", "garden": "moments", "kitchen": "class"}
    agents = {
        name: AgentProcess(
            tmp_path / name, name, broker, coordinator.public_key, encrypt=name == "attic", new_samples=SAMPLES
        )
        for name in owners
    }
    try:
        for name, agent in agents.items():
            with agent.configuration.open("a") as file:
                file.write(f'[tasks.prompts]\nmost = "{owners[name]}"\nminimum_samples = 2\n')
            agent.start()
            agent.feed(SAMPLES)
        until(lambda: kinds_of(coordinator).count(PROMPTS.number) == 3, "every device has told its prompts")
        assert set(kinds_of(coordinator)) == {PROMPTS.number}
        coordinator.kill()
        coordinator.start_serving()
        made = generate(coordinator, tmp_path / "data", "--count", "30", "--epochs", "5")
        assert (made["devices"], made["version"], made["samples"]) == (3, 1, 300)
        assert made["accuracy_on_synthetic"] > 0.9
        assert (tmp_path / "data" / "report.html").exists()
        for agent in agents.values():
            until(lambda agent=agent: trains_from_newer(agent), "a device has it, and trains from it")
        until(lambda: coordinator.tasks("show", "digits")["version"] >= 2, "their updates make the next version")
        shown = coordinator.tasks("show", "digits")["versions"]
        assert shown[1]["given"].startswith("trained on 300 samples that features made of the prompts of 3 devices")
        assert coordinator.tasks("verify", "digits")["equal"]
        assert kinds_of(coordinator).count(PROMPTS.number) == 3
        assert "prompts_spooled" in agents["attic"].log()
    finally:
        for agent in agents.values():
            agent.kill()
        coordinator.kill()
