"""An agent's memory when somebody leaves it a message as large as MQTT allows to speak of."""

import threading
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from broker_coordinator.distribution.signed_messages import MessageSigner
from fleet_protocol import topics
from fleet_protocol.keys import SigningKey
from fleet_protocol.kinds import Manifest
from fleet_protocol.limits import MIB
from tests.support.agent import AgentProcess
from tests.support.broker import Broker
from tests.support.fleet import FLEET, SHARD
from tests.support.waiting import until

HOSTILE_BYTES = 60 * MIB
ROOM_KIB = 4 * 1024
"""What an agent may take more than before: a read, a buffer, a log line."""


def peak_kib(agent: AgentProcess) -> int:
    status = Path(f"/proc/{agent.pid}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))


@pytest.fixture
def unlimited_broker(tmp_path: Path):
    broker = Broker(tmp_path / "broker", maximum_packet_bytes=0)
    broker.start()
    yield broker
    broker.kill()


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_huge_retained_message_costs_an_agent_no_memory_and_no_connection(tmp_path, unlimited_broker, protocol) -> None:
    key = SigningKey.generate()
    agent = AgentProcess(tmp_path / "agent", "kitchen", unlimited_broker, key.verify_key, protocol=protocol)
    sent = threading.Semaphore(0)
    outsider = paho.Client(CallbackAPIVersion.VERSION2, "outsider")
    outsider.on_publish = lambda *_: sent.release()
    outsider.connect(unlimited_broker.host, unlimited_broker.port)
    outsider.loop_start()

    def publish(topic: str, data: bytes) -> None:
        outsider.publish(topic, data, qos=1, retain=True)
        assert sent.acquire(timeout=60)

    def learn_of_version(number: int) -> None:
        ended = Manifest(number, "0" * 64, "1" * 64, removed=True)  # of such a task it hears asleep too
        manifest = MessageSigner(key, FLEET, SHARD).manifest("digits", ended)
        publish(manifest.topic, manifest.data)
        until(lambda: agent.status()["versions"] == {"digits": number}, f"version {number} is known")

    try:
        agent.start()
        until(lambda: agent.status()["connected"], "the agent is connected")
        learn_of_version(1)
        before = peak_kib(agent)
        publish(topics.manifest(FLEET, "digits"), bytes(HOSTILE_BYTES))
        publish(topics.down(FLEET, SHARD, "kitchen"), bytes(HOSTILE_BYTES))  # this one stays
        learn_of_version(2)
        assert peak_kib(agent) < before + ROOM_KIB
        agent.kill()
        agent.start()
        learn_of_version(3)
        assert peak_kib(agent) < before + ROOM_KIB
        assert "event=broker_unreachable" not in agent.log()
        # An MQTT 5 broker was told what an agent can take, and keeps the message to itself.
        assert agent.log().count("event=message_too_large") == (2 if protocol == "3.1.1" else 0)
    finally:
        agent.kill()
        outsider.disconnect()
        outsider.loop_stop()
