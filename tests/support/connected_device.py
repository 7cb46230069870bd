"""A device reduced to its protocol, on a broker: it signs, publishes and receives when a test says so."""

import math
import threading
import time

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from edge_agent.mqtt.broker_client import HEARS_AT_QOS
from edge_agent.shell.connection.identity import Identity
from fleet_protocol import topics
from fleet_protocol.envelope import digest
from fleet_protocol.keys import SigningKey, VerifyKey
from fleet_protocol.kinds import BlobChunk, Manifest, Receipt
from fleet_protocol.limits import MAX_SIGNED_CHUNK_BYTES
from fleet_protocol.topics import PackedWeights
from tests.support.broker import Address
from tests.support.bundles import TASK
from tests.support.device import SigningDevice
from tests.support.fleet import FLEET, SHARD
from tests.support.waiting import DEADLINE_SECONDS, until

PROTOCOLS = {"5": MQTTProtocolVersion.MQTTv5, "3.1.1": MQTTProtocolVersion.MQTTv311}


class ConnectedDevice(SigningDevice):
    """A device on a broker. Every message of the coordinator is verified before it is kept."""

    def __init__(
        self,
        name: str,
        broker: Address,
        coordinator_key: VerifyKey,
        key: SigningKey | None = None,
        *,
        shard: str = SHARD,
        protocol: str = "5",
    ) -> None:
        super().__init__(name, key, coordinator_key=coordinator_key, shard=shard)
        self.received = ReceivedMessages(self.identity)
        self._client = paho.Client(CallbackAPIVersion.VERSION2, f"device-{name}", protocol=PROTOCOLS[protocol])
        self._client.on_connect = self._subscribe
        self._client.on_subscribe = lambda *_: self.received.subscribed.set()
        self._client.on_message = lambda _client, _, message: self.received.take(message.topic, message.payload)
        self._client.reconnect_delay_set(1, 1)
        self._client.connect(broker.host, broker.port)
        self._client.loop_start()
        until(self.received.subscribed.is_set, f"{name} has subscribed")

    def _subscribe(self, *_: object) -> None:
        for topic in (self.identity.down_topic, topics.manifest(FLEET, "+")):
            self._client.subscribe(topic, qos=HEARS_AT_QOS)

    def close(self) -> None:
        """Leave the broker."""
        self._client.disconnect()
        self._client.loop_stop()

    def publish(self, data: bytes, topic: str | None = None, *, retain: bool = False) -> bytes:
        """Publish at QoS 1; returns the digest that a receipt would name."""
        self._client.publish(topic or self.up, data, qos=1, retain=retain)
        return digest(data)

    def hand_over(self, data: bytes) -> None:
        """Publish, and return when the broker has it: it is then also on its way to every subscriber."""
        until(self._client.publish(self.up, data, qos=1).is_published, f"the broker acknowledges {self.name}'s message")

    def enrol(self) -> Receipt:
        """Enrol. A manifest says that the coordinator has subscribed: a message sent before would be lost. Of several
        shards', another one than this device's may have published it: so it is sent until it is answered.
        """
        until(lambda: TASK in self.received.manifests, f"{self.name} receives a manifest")
        return self.publish_until_receipt(self.enrolment())

    def tell(self, data: bytes) -> Receipt:
        """Publish, and wait for the receipt for these very bytes."""
        self.publish(data)
        return self.receipt(data)

    def publish_until_receipt(self, data: bytes, seconds: float = DEADLINE_SECONDS) -> Receipt:
        """Publish again and again until there is a receipt: what an agent does while brokers come and go."""
        last_told = -math.inf

        def told() -> bool:
            nonlocal last_told
            if time.monotonic() - last_told > 0.5:
                self.publish(data)
                last_told = time.monotonic()
            return digest(data) in self.received.receipts

        until(told, f"{self.name} receives a receipt", seconds)
        return self.receipt(data)

    def receipt(self, data: bytes) -> Receipt:
        """Wait for the receipt for these very bytes."""
        return until(lambda: self.received.receipts.get(digest(data)), f"{self.name} receives a receipt")[-1]

    def listen_for(self, wanted: str | PackedWeights) -> None:
        """Subscribe to the chunks of a blob or of packed weights, and return when the broker has agreed."""
        self.received.subscribed.clear()
        self._client.subscribe(topics.chunks(FLEET, wanted), qos=1)
        until(self.received.subscribed.is_set, f"{self.name} has subscribed")


class ReceivedMessages:
    """What a device has received from its coordinator, verified."""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self.subscribed = threading.Event()
        self.receipts: dict[bytes, list[Receipt]] = {}
        self.manifests: dict[str, Manifest] = {}
        self.chunks: dict[tuple[str | PackedWeights, int], list[BlobChunk]] = {}

    def take(self, topic: str, data: bytes) -> None:
        """Verify and keep one message."""
        payload, task = self._identity.verify_from_coordinator(topic, data, MAX_SIGNED_CHUNK_BYTES)
        match payload:
            case Receipt():
                self.receipts.setdefault(payload.digest, []).append(payload)
            case Manifest():
                self.manifests[task] = payload
            case BlobChunk():
                self.chunks.setdefault(topics.chunk_of(topic), []).append(payload)
