"""What an installer copies is accepted by the code that will read it: profiles, and every sample configuration."""

import re
from pathlib import Path

import pytest

from broker_coordinator.configuration import load_configuration as load_coordinator
from edge_agent.configuration import AgentConfiguration
from edge_agent.configuration import load_configuration as load_agent
from edge_agent.profiles import read_profile, shipped_profiles
from session_relay.helper.configuration import load_helper_configuration

REPOSITORY = Path(__file__).parents[2]
IDLE_AGENT_MIB = 40
"""What the agent itself takes beside its worker."""
UNIT_SHARE = 0.6
"""MemoryMax= in systemd/edge-agent.service."""
MISSING_TO_LINUX_MIB = 96
"""What firmware and video memory take of a Pi's memory."""

each_profile = pytest.mark.parametrize("name", shipped_profiles())


@each_profile
def test_a_profile_leaves_a_core_and_most_memory_to_the_device(name: str) -> None:
    parsed = read_profile(name)
    assert parsed.worker.threads < max(parsed.device.cores, 2)
    unit_limit = UNIT_SHARE * (parsed.device.memory_mib - MISSING_TO_LINUX_MIB)
    assert parsed.worker.memory_limit_mib + IDLE_AGENT_MIB <= unit_limit
    assert parsed.guards.minimum_free_memory_mib is not None


@each_profile
def test_the_sample_configuration_takes_every_profile_by_its_name(name: str, tmp_path: Path) -> None:
    sample = (REPOSITORY / "systemd" / "agent.toml").read_text()
    configuration = tmp_path / "agent.toml"
    configuration.write_text(re.sub(r"(?m)^profile = .*", f'profile = "{name}"', sample))
    parsed, expected = load_agent(configuration), read_profile(name)
    assert (parsed.guards, parsed.worker, parsed.store) == (expected.guards, expected.worker, expected.store)


def test_the_sample_configurations_speak_of_one_fleet_and_one_broker() -> None:
    agent = load_agent(REPOSITORY / "systemd" / "agent.toml")
    coordinator = load_coordinator(REPOSITORY / "systemd" / "coordinator.toml")
    assert (agent.fleet, agent.shard) == (coordinator.fleet, coordinator.shard)
    assert (agent.broker.host, agent.broker.port) == (coordinator.broker.host, coordinator.broker.port)
    assert coordinator.enrolment == "closed"


def test_sample_paths_are_the_folders_that_the_units_may_write_to() -> None:
    agent = load_agent(REPOSITORY / "systemd" / "agent.toml")
    coordinator = load_coordinator(REPOSITORY / "systemd" / "coordinator.toml")
    assert agent.state_folder == Path("/var/lib/edge-agent")
    assert agent.sample_socket.parent == Path("/run/edge-agent")
    helper = load_helper_configuration(REPOSITORY / "systemd" / "helper.toml")
    assert helper.state_folder == Path("/var/lib/edgeflock-helper")
    assert helper.sample_socket.parent == Path("/run/edgeflock-helper")
    assert Path(coordinator.database).parent == Path("/var/lib/broker-coordinator")


def test_the_lab_of_the_compose_file_is_one_fleet(tmp_path: Path) -> None:
    lab = REPOSITORY / "docker" / "lab"
    compose = (REPOSITORY / "docker" / "compose.yaml").read_text()
    coordinator = load_coordinator(lab / "coordinator.toml")
    key = "ab" * 32
    started = re.sub(r"(?m)^device = .*", 'device = "0123456789ab"', (lab / "agent.toml").read_text())
    started = re.sub(r"(?m)^coordinator_key = .*", f'coordinator_key = "{key}"', started)
    (tmp_path / "agent.toml").write_text(started)
    agent = load_agent(tmp_path / "agent.toml")
    assert isinstance(agent, AgentConfiguration)
    assert (agent.device, agent.coordinator_key) == ("0123456789ab", key)
    assert (agent.fleet, agent.shard) == (coordinator.fleet, coordinator.shard)
    for broker in (agent.broker, coordinator.broker):
        assert f"\n  {broker.host}:\n" in compose
        assert f"listener {broker.port}\n" in (lab / "mosquitto.conf").read_text()
    (bundle,) = [task.bundle for task in coordinator.tasks]
    assert (REPOSITORY / bundle.relative_to("/") / "task.json").is_file()
    assert agent.tasks[0].name == bundle.parent.name
    helper = load_helper_configuration(lab / "helper.toml")
    assert (helper.fleet, helper.shard, helper.broker) == (agent.fleet, agent.shard, agent.broker)
