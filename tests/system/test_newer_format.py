"""A task that is newer than the agent is said to be, costs nothing but that task's rounds, and goes on after an update.

The shipped programs on a real Mosquitto.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from paho.mqtt import publish

from fleet_host.key_files import read_key_ring_file
from fleet_protocol import cbor, topics
from fleet_protocol.envelope import sign_envelope
from fleet_protocol.kinds import MANIFEST
from tests.support.agent import AgentProcess, copy_digits_bundle
from tests.support.broker import Broker
from tests.support.coordinator import CoordinatorProcess
from tests.support.fleet import FLEET
from tests.support.waiting import until


@pytest.fixture
def coordinator(tmp_path: Path, broker: Broker) -> Iterator[CoordinatorProcess]:
    copy_digits_bundle(tmp_path / "digits", buffer_size=1)
    coordinator = CoordinatorProcess(tmp_path / "coordinator", broker, [tmp_path / "digits"])
    coordinator.start_serving()
    yield coordinator
    coordinator.kill()


@pytest.fixture
def agent(tmp_path: Path, broker: Broker, coordinator: CoordinatorProcess) -> Iterator[AgentProcess]:
    agent = AgentProcess(tmp_path / "kitchen", "kitchen", broker, coordinator.public_key)
    yield agent
    agent.kill()


def unreadable(agent: AgentProcess) -> str:
    """Why, once it is."""
    until(lambda: agent.status()["tasks"]["digits"]["state"] == "unreadable", "it says that it does not read the task")
    return str(agent.status()["tasks"]["digits"]["reason"])


def newer_manifest(coordinator: CoordinatorProcess) -> tuple[str, bytes]:
    """One that the coordinator's next release might sign: with a field more."""
    (key,) = read_key_ring_file(coordinator.configuration.parent / "coordinator.key", "broker-coordinator")
    topic = topics.manifest(FLEET, "digits")
    payload = cbor.encode([9, "ab" * 32, "cd" * 32, 2**32, 1, True, "a field of tomorrow"])
    return topic, sign_envelope(key, topic, MANIFEST, payload, sequence=9, task="digits")


def test_task_of_a_newer_format_waits_with_its_samples_until_the_agent_is_updated(coordinator, agent) -> None:
    agent.program = "tests.support.older_agent"
    agent.start()
    agent.feed(4)
    assert unreadable(agent) == "not readable: task.json: bundle format 1, this edgeflock reads 0; update edgeflock"
    agent.feed(4, first=4)
    assert agent.status()["samples"] == {"digits": 8}
    assert agent.log().count("event=task_not_readable") == 1
    assert agent.log().count("reads 0") == 2, "and the one round that found it"
    agent.stop()
    agent.program = AgentProcess.program
    agent.start()
    until(lambda: agent.status()["accepted_updates"] == 1, "it goes on with the samples that it has")
    assert agent.status()["samples"] == {"digits": 8}


def test_manifest_of_a_newer_format_is_said_once_and_the_next_readable_one_ends_it(coordinator, agent, broker) -> None:
    agent.start()
    agent.feed(4)
    until(lambda: agent.status()["accepted_updates"] == 1, "it has trained")
    agent.stop()
    coordinator.kill()
    topic, data = newer_manifest(coordinator)
    publish.single(topic, data, qos=1, retain=True, hostname=broker.host, port=broker.port)
    agent.start()
    assert "update edgeflock" in unreadable(agent)
    for _ in range(3):
        publish.single(topic, data, qos=1, hostname=broker.host, port=broker.port)
    agent.feed(4, first=4)
    assert agent.log().count("event=task_not_readable") == 1
    coordinator.start_serving()
    until(lambda: agent.status()["accepted_updates"] == 1, "it hears of the task again, and trains")
    assert agent.log().count("event=task_not_readable") == 1
