"""The configurations that a demo writes are ones that the programs take."""

from pathlib import Path

from broker_coordinator import configuration as coordinator
from edge_agent import configuration as agent
from fleet_protocol.keys import SigningKey, write_verify_key
from session_relay.helper.configuration import load_helper_configuration
from workbench.demo.fleet_files import AGENT, COORDINATOR, FLEET, TASK, WHOLE
from workbench.demo.helper import HELPER

BROKER = {"fleet": FLEET, "host": "127.0.0.1", "port": 1883, "protocol": "5"}


def test_agents_and_coordinator_of_a_demo_read_their_configurations(tmp_path: Path) -> None:
    key = write_verify_key(SigningKey(bytes(range(32))).verify_key)
    (tmp_path / "agent.toml").write_text(
        AGENT.format(
            device="pi-01",
            coordinator_key=key,
            socket="s",
            cpu_share=0.6,
            task=TASK,
            new_samples=6,
            trigger="new_samples = 6, new_version = true",
            cut=WHOLE,
            **BROKER,
        )
    )
    (tmp_path / "helper.toml").write_text(
        HELPER.format(device="gateway", coordinator_key=key, socket="s", task=TASK, **BROKER)
    )
    (tmp_path / "coordinator.toml").write_text(COORDINATOR.format(bundle="bundle", **BROKER))
    assert agent.load_configuration(tmp_path / "agent.toml").guards.minimum_samples == 6
    assert load_helper_configuration(tmp_path / "helper.toml").tasks[0].name == TASK
    assert coordinator.load_configuration(tmp_path / "coordinator.toml").fleet == FLEET
