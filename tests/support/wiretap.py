"""Hears all that a broker passes on."""

import threading

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from fleet_protocol.envelope import read_envelope
from fleet_protocol.kinds import Manifest, decode_payload
from fleet_protocol.limits import MAX_CONTROL_BYTES
from tests.support.broker import Broker
from tests.support.waiting import until


class Wiretap:
    """Everything that goes over the broker, in order of arrival."""

    def __init__(self, broker: Broker) -> None:
        self.received: list[tuple[str, bytes]] = []
        subscribed = threading.Event()
        self._client = paho.Client(CallbackAPIVersion.VERSION2, "wiretap")
        self._client.on_connect = lambda client, *_: client.subscribe("#", qos=1)
        self._client.on_subscribe = lambda *_: subscribed.set()
        self._client.on_message = lambda _client, _, message: self.received.append((message.topic, message.payload))
        self._client.connect(broker.host, broker.port)
        self._client.loop_start()
        until(subscribed.is_set, "the wiretap listens")

    def under(self, part: str) -> list[str]:
        """Topics that hold `part`."""
        return [topic for topic, _ in self.received if part in topic]

    def announced(self) -> int:
        """The newest version that a manifest has named."""
        manifests = [data for topic, data in self.received if "/task/" in topic]
        return max((_manifest(data).version for data in manifests), default=0)

    def publish(self, topic: str, data: bytes) -> None:
        """Say something, as anybody may where the broker has no rules."""
        self._client.publish(topic, data, qos=1)

    def close(self) -> None:
        """Hang up."""
        self._client.disconnect()
        self._client.loop_stop()


def _manifest(data: bytes) -> Manifest:
    return decode_payload(read_envelope(data, MAX_CONTROL_BYTES).payload, Manifest)
