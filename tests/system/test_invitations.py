"""Sleeping devices hear of no version, and of invitations, of which a replayed one starts nothing; a real broker."""

from collections.abc import Iterator
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from fleet_protocol import topics
from tests.support.agent import AgentProcess, copy_digits_bundle
from tests.support.broker import Broker
from tests.support.coordinator import CoordinatorProcess
from tests.support.fleet import FLEET
from tests.support.waiting import until

TOPIC = topics.invitation(FLEET, "digits")


@pytest.fixture
def coordinator(tmp_path: Path, broker: Broker) -> Iterator[CoordinatorProcess]:
    copy_digits_bundle(tmp_path / "digits", buffer_size=1)
    coordinator = CoordinatorProcess(tmp_path / "coordinator", broker, [tmp_path / "digits"])
    coordinator.start_serving()
    yield coordinator
    coordinator.kill()


@pytest.fixture
def agent(tmp_path: Path, broker: Broker, coordinator: CoordinatorProcess) -> Iterator[AgentProcess]:
    """It trains when it is invited, and else after more samples than it gets."""
    agent = AgentProcess(tmp_path / "kitchen", "kitchen", broker, coordinator.public_key, new_samples=1000)
    text = agent.configuration.read_text()
    agent.configuration.write_text(text.replace("new_samples = 1000", "new_samples = 1000, invitation = true"))
    agent.start()
    yield agent
    agent.kill()


class Outsider:
    """Keeps what it hears on the topic of invitations, and plays it again."""

    def __init__(self, broker: Broker) -> None:
        self.heard: list[bytes] = []
        self._client = paho.Client(CallbackAPIVersion.VERSION2, "outsider")
        self._client.on_connect = lambda client, *_: client.subscribe(TOPIC, qos=1)
        self._client.on_message = lambda _client, _, message: self.heard.append(message.payload)
        self._client.connect(broker.host, broker.port)
        self._client.loop_start()

    def replay(self, data: bytes) -> None:
        before = len(self.heard)
        until(self._client.publish(TOPIC, data, qos=1).is_published, "the broker has it")
        until(lambda: len(self.heard) > before, "whoever listens has heard it")

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@pytest.fixture
def outsider(broker: Broker) -> Iterator[Outsider]:
    outsider = Outsider(broker)
    yield outsider
    outsider.close()


def accepted(agent: AgentProcess) -> int:
    return int(agent.status()["accepted_updates"])


def rounds(agent: AgentProcess) -> int:
    return agent.log().count("event=round_spooled")


def test_invited_device_trains_once_from_a_version_whoever_repeats_the_invitation(coordinator, agent, outsider) -> None:
    agent.feed(4)
    until(lambda: agent.status()["versions"] == {"digits": 0}, "it has heard of the version")
    assert rounds(agent) == 0
    said = coordinator.tasks("invite", "digits")
    assert (said["version"], said["generation"]) == (0, 0)
    until(lambda: accepted(agent) == 1, "it trained, and its update was accepted")
    invitation = outsider.heard[-1]
    for _ in range(3):
        outsider.replay(invitation)
    coordinator.tasks("invite", "digits")
    until(lambda: accepted(agent) == 2, "version 1 is another one")
    assert rounds(agent) == 2
    for forged in (b"\x00", invitation[:-1], invitation[:-1] + bytes([invitation[-1] ^ 1]), bytes(100_000)):
        outsider.replay(forged)
    agent.feed(1, first=4)
    assert rounds(agent) == 2
    assert agent.log().count("event=round_failed") == 0


def test_sleeping_device_hears_of_no_version_and_of_another_generation(coordinator, agent, tmp_path) -> None:
    agent.feed(4)
    agent.ask({"command": "train"})
    until(lambda: accepted(agent) == 1, "an update makes version 1")
    with coordinator.journal() as journal:
        until(lambda: journal.newest_version("digits").number == 1, "it is made")
    copy_digits_bundle(tmp_path / "changed", buffer_size=1, max_staleness=5)
    assert agent.status()["versions"] == {"digits": 0}, "it sleeps, and was told nothing"
    (published,) = coordinator.tasks("publish", str(tmp_path / "changed"))
    until(lambda: agent.status()["versions"] == {"digits": published["version"]}, "the generation is told")
    coordinator.tasks("remove", "digits")
    until(lambda: agent.status()["tasks"]["digits"]["state"] == "ended", "and so is the end of the task")
