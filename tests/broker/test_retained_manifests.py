"""Whoever may publish can clear or replace a retained manifest: a device that connects later learns of its version."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from fleet_protocol import topics
from fleet_protocol.keys import SigningKey
from fleet_protocol.kinds import PresenceState
from tests.support.broker import Broker
from tests.support.bundles import TASK
from tests.support.connected_device import ConnectedDevice
from tests.support.fleet import FLEET
from tests.support.waiting import until

TOPIC = topics.manifest(FLEET, TASK)


class Retained:
    """An outsider, who sees what is retained and puts something else in its place."""

    def __init__(self, broker: Broker) -> None:
        self.seen: list[bytes] = []
        self._client = paho.Client(CallbackAPIVersion.VERSION2, "outsider", protocol=MQTTProtocolVersion.MQTTv311)
        self._client.on_message = lambda _client, _, message: self.seen.append(message.payload)
        self._client.on_connect = lambda client, *_: client.subscribe(TOPIC, qos=1)
        self._client.connect(broker.host, broker.port)
        self._client.loop_start()
        until(lambda: self.seen, "it sees the retained manifest")

    def replace(self, payload: bytes) -> None:
        until(self._client.publish(TOPIC, payload, qos=1, retain=True).is_published, "it is replaced")

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@pytest.fixture
def outsider(broker, coordinator) -> Iterator[Retained]:
    outsider = Retained(broker)
    yield outsider
    outsider.close()


@pytest.fixture
def device_at(broker, coordinator) -> Callable[..., AbstractContextManager[ConnectedDevice]]:
    """Connects a device for a while: who is connected while a manifest is replaced would have to refuse it."""

    @contextmanager
    def connected(name: str, key: SigningKey | None = None) -> Iterator[ConnectedDevice]:
        device = ConnectedDevice(name, broker, coordinator.public_key, key)
        try:
            yield device
        finally:
            device.close()

    return connected


@pytest.mark.parametrize("replaced_by", ["nothing", "an older one"])
def test_device_that_connects_learns_of_its_version_although_its_retained_manifest_is_gone(
    device_at, outsider, replaced_by
) -> None:
    with device_at("kitchen-pi") as device:
        device.enrol()
        for sequence in (1, 2, 3):
            device.tell(device.update(sequence))
        knows_version_1(device)
    left_behind = b"" if replaced_by == "nothing" else outsider.seen[0]

    outsider.replace(left_behind)
    with device_at("kitchen-pi", device.key) as again:
        again.publish(again.presence(PresenceState.ONLINE, 2), again.state, retain=True)
        knows_version_1(again)
    with device_at("attic-pi") as observer:
        until(lambda: TASK in observer.received.manifests, "the broker has a manifest")
        assert observer.received.manifests[TASK].version == 1, "what is retained is right again"

    outsider.replace(left_behind)
    with device_at("garden-pi") as newcomer:
        newcomer.tell(newcomer.enrolment())
        knows_version_1(newcomer)


def knows_version_1(device: ConnectedDevice) -> None:
    until(lambda: (m := device.received.manifests.get(TASK)) and m.version == 1, f"{device.name} learns of version 1")
