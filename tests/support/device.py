"""A device reduced to its protocol: it signs, publishes and hears, and does nothing by itself."""

import math
import threading
import time

import numpy as np
import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from fleet_protocol import topics
from fleet_protocol.bundle import UpdatePlan
from fleet_protocol.codec import encode_update
from fleet_protocol.encryption import encrypt_payload
from fleet_protocol.envelope import digest, read_envelope, sign_envelope
from fleet_protocol.keys import SigningKey, VerifyKey
from fleet_protocol.kinds import (
    BLOB_REQUEST,
    ENCRYPTED_UPDATE,
    ENROLMENT,
    PRESENCE,
    UPDATE,
    WEIGHTS_REQUEST,
    BlobChunk,
    BlobRequest,
    Enrolment,
    Manifest,
    PayloadKind,
    Presence,
    PresenceState,
    Receipt,
    Update,
    WeightsRequest,
    decode_payload,
    encode_payload,
)
from fleet_protocol.limits import MAX_SIGNED_CHUNK_BYTES
from fleet_protocol.topics import PackedWeights
from tests.support.broker import Broker
from tests.support.bundles import TASK
from tests.support.coordinator import FLEET, SHARD
from tests.support.waiting import until


class SigningDevice:
    """A name and a key: makes the bytes that such a device would publish."""

    def __init__(self, name: str, key: SigningKey | None = None) -> None:
        self.name, self.key = name, key or SigningKey.generate()

    @property
    def up(self) -> str:
        """The topic on which it speaks."""
        return topics.up(FLEET, SHARD, self.name)

    @property
    def state(self) -> str:
        """The topic of its presence."""
        return topics.state(FLEET, SHARD, self.name)

    def sign(
        self, kind: PayloadKind, payload: bytes, *, topic: str | None = None, sequence: int = 1, **header
    ) -> bytes:
        """Any message, signed for `topic` (its own `up` unless told)."""
        return sign_envelope(self.key, topic or self.up, kind, payload, sequence=sequence, **header)

    def enrolment(self) -> bytes:
        """The signed introduction."""
        enrolment = Enrolment(bytes(self.key.verify_key), "generic", "test 1.0", [TASK])
        return self.sign(ENROLMENT, encode_payload(enrolment))

    def presence(self, state: PresenceState, boot: int) -> bytes:
        """The signed presence."""
        payload = encode_payload(Presence(state, boot))
        return self.sign(PRESENCE, payload, topic=self.state, sequence=boot)

    def blob_request(self, blob: str, chunks: list[int], sequence: int) -> bytes:
        """The signed wish for chunks."""
        return self.sign(BLOB_REQUEST, encode_payload(BlobRequest(bytes.fromhex(blob), chunks)), sequence=sequence)

    def weights_request(self, version: int, base: int | None, sequence: int, chunks: list[int] | None = None) -> bytes:
        """The signed wish for a packed version of the tiny task."""
        payload = encode_payload(WeightsRequest(version, base, chunks or []))
        return self.sign(WEIGHTS_REQUEST, payload, sequence=sequence, task=TASK)

    def update(
        self,
        sequence: int,
        *,
        task: str = TASK,
        base_version: int = 0,
        samples: int = 8,
        loss: float = 0.5,
        packed: bytes | None = None,
        life: int = 0,
        recipient: VerifyKey | None = None,
        shapes: tuple[tuple[int, ...], ...] = ((4, 8), (4,)),
    ) -> bytes:
        """An update, encrypted for `recipient` if any; its delta differs from one device and sequence to the next."""
        if packed is None:
            seed = int.from_bytes(digest(f"{self.name} {sequence}".encode()), "big")
            generator = np.random.default_rng(seed)
            delta = generator.normal(0, 0.1, sum(map(math.prod, shapes))).astype(np.float32)
            packed = encode_update(delta, shapes, UpdatePlan(keep_fraction=0.5), generator).packed
        payload = encode_payload(Update(samples, 1, loss, packed, life))
        kind = ENCRYPTED_UPDATE if recipient else UPDATE
        payload = encrypt_payload(self.key, recipient, sequence, payload) if recipient else payload
        return self.sign(kind, payload, sequence=sequence, task=task, base_version=base_version)


class ConnectedDevice(SigningDevice):
    """The same, on a broker. Whatever it hears from the coordinator is verified before it is kept."""

    def __init__(self, name: str, broker: Broker, coordinator_key: VerifyKey) -> None:
        super().__init__(name)
        self.heard = Heard(coordinator_key)
        self._client = paho.Client(CallbackAPIVersion.VERSION2, f"device-{name}", protocol=MQTTProtocolVersion.MQTTv5)
        self._client.on_connect = self._subscribe
        self._client.on_subscribe = lambda *_: self.heard.subscribed.set()
        self._client.on_message = lambda _client, _, message: self.heard.take(message.topic, message.payload)
        self._client.reconnect_delay_set(1, 1)
        self._client.connect(broker.host, broker.port)
        self._client.loop_start()
        until(self.heard.subscribed.is_set, f"{name} has subscribed")

    def _subscribe(self, *_: object) -> None:
        for topic in (topics.down(FLEET, SHARD, self.name), topics.manifest(FLEET, "+")):
            self._client.subscribe(topic, qos=1)

    def close(self) -> None:
        """Leave the broker."""
        self._client.disconnect()
        self._client.loop_stop()

    def publish(self, data: bytes, topic: str | None = None, *, retain: bool = False) -> bytes:
        """Publish at QoS 1; returns the digest that a receipt would name."""
        self._client.publish(topic or self.up, data, qos=1, retain=retain)
        return digest(data)

    def enrol(self) -> Receipt:
        """Introduce itself. A manifest says that the coordinator has subscribed: before, nobody keeps a message."""
        until(lambda: TASK in self.heard.manifests, f"{self.name} hears a manifest")
        return self.tell(self.enrolment())

    def tell(self, data: bytes) -> Receipt:
        """Publish, and wait for the receipt for these very bytes."""
        self.publish(data)
        return self.receipt(data)

    def tell_until_heard(self, data: bytes) -> Receipt:
        """Publish again and again until there is a receipt: what an agent does while brokers come and go."""
        last_told = -math.inf

        def told() -> bool:
            nonlocal last_told
            if time.monotonic() - last_told > 0.5:
                self.publish(data)
                last_told = time.monotonic()
            return digest(data) in self.heard.receipts

        until(told, f"{self.name} hears a receipt")
        return self.receipt(data)

    def receipt(self, data: bytes) -> Receipt:
        """Wait for the receipt for these very bytes."""
        return until(lambda: self.heard.receipts.get(digest(data)), f"{self.name} hears a receipt")[-1]

    def listen_for(self, wanted: str | PackedWeights) -> None:
        """Subscribe to the chunks of a blob or of packed weights, and return when the broker has agreed."""
        self.heard.subscribed.clear()
        self._client.subscribe(topics.chunks(FLEET, wanted), qos=1)
        until(self.heard.subscribed.is_set, f"{self.name} has subscribed")


class Heard:
    """What a device heard from its coordinator, by what it is about."""

    def __init__(self, coordinator_key: VerifyKey) -> None:
        self._key = coordinator_key
        self.subscribed = threading.Event()
        self.receipts: dict[bytes, list[Receipt]] = {}
        self.manifests: dict[str, Manifest] = {}
        self.chunks: dict[tuple[str | PackedWeights, int], list[BlobChunk]] = {}

    def take(self, topic: str, data: bytes) -> None:
        """Verify and keep one message."""
        envelope = read_envelope(data, MAX_SIGNED_CHUNK_BYTES)
        envelope.verify(self._key, topic)
        payload = decode_payload(envelope.payload, envelope.header.kind.payload)
        match payload:
            case Receipt():
                self.receipts.setdefault(payload.digest, []).append(payload)
            case Manifest():
                assert payload.version == envelope.header.sequence
                self.manifests[envelope.header.task] = payload
            case BlobChunk():
                self.chunks.setdefault(topics.chunk_of(topic), []).append(payload)
