"""How simulated devices and their coordinator talk: in signed envelopes, as shipped, or without signatures."""

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Protocol

import msgspec

from broker_coordinator.admission.decisions import Message
from broker_coordinator.admission.parsed_message import ParsedMessage
from broker_coordinator.distribution.signed_messages import MessageSigner
from edge_agent.core.outbox import OutboxRow
from edge_agent.shell.connection.identity import Identity
from fleet_protocol import topics
from fleet_protocol.envelope import Envelope, Header, digest
from fleet_protocol.keys import SigningKey, key_id, write_verify_key
from fleet_protocol.kinds import (
    ENROLMENT,
    KINDS,
    Enrolment,
    PayloadKind,
    Presence,
    PresenceState,
    Receipt,
    decode_payload,
    encode_payload,
)
from fleet_protocol.limits import BOOT_SHIFT, MAX_CONTROL_BYTES
from workbench.simulation.own_payloads import OwnPayload, UpdatesUnderWay

FLEET, SHARD = "simulated", "0"
COORDINATOR: Final = "coordinator"
PROFILE, SOFTWARE = "simulated", "simulated"

IDENTITIES_KEPT: Final = 10_000
"""Of devices that woke last, in memory: keys take longer to make than many a round."""

Parcel = Message | ParsedMessage
"""What a device sends: as bytes, or, without a signature, as what the coordinator reads from them."""


def parcel_bytes(parcel: Parcel) -> int:
    """How many bytes it has on its way."""
    return len((parcel.message if isinstance(parcel, ParsedMessage) else parcel).data)


class DeviceEnd(Protocol):
    """One device's end: what it writes and reads. `boot` counts its starts."""

    device: str
    boot: int
    identity: Identity | None
    """Who signs; None where nothing is signed."""

    def presence_bytes(self) -> int:
        """The size of a presence."""
        ...

    def request_bytes(self, kind: PayloadKind, payload: bytes, task: str = "") -> int:
        """The size of a request for a file or for weights."""
        ...

    def enrolment(self, task: str) -> tuple[bytes, Parcel]:
        """An enrolment for a task, and the digest that its receipt names."""
        ...

    def address(self, kind: PayloadKind) -> tuple[int, bytes]:
        """See `Identity.address`."""
        ...

    def sign_row(self, row: OutboxRow) -> bytes:
        """What a payload's receipt names it by, before it is hashed: the same row gives the same bytes."""
        ...

    def parcel(self, row: OutboxRow, envelope: bytes) -> Parcel:
        """A payload on its way; `envelope` is what `sign_row` gave."""
        ...

    def receipt(self, data: bytes) -> Receipt:
        """What the coordinator has sent."""
        ...


class Messages(Protocol):
    """The way of talking of a whole fleet; `signer` is the coordinator's end."""

    signer: MessageSigner

    def end(self, number: int) -> DeviceEnd:
        """The end of the device with this number."""
        ...


class SignedMessages:
    """As shipped: every message is signed and verified, with keys that follow from the seed."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        key = self.key(COORDINATOR)
        self._pinned = write_verify_key(key.verify_key)
        self.signer = MessageSigner(key, FLEET, SHARD)
        self._kept = lru_cache(IDENTITIES_KEPT)(self._new_end)

    def end(self, number: int) -> DeviceEnd:
        """See `Messages`."""
        return self._kept(number)

    def _new_end(self, number: int) -> DeviceEnd:
        return SignedEnd(self.identity(device_name(number)))

    def key(self, name: str) -> SigningKey:
        """That of whoever has this name."""
        return SigningKey(_secret(self._seed, name))

    def identity(self, name: str) -> Identity:
        """That of whoever has this name, with the coordinator's key pinned."""
        return Identity(FLEET, SHARD, name, self.key(name), self._pinned)


class SignedEnd:
    """See `DeviceEnd`."""

    __slots__ = ("_identity", "device", "identity")

    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self.identity: Identity | None = identity
        self.device = identity.device

    @property
    def boot(self) -> int:
        """See `DeviceEnd`."""
        return self._identity.boot

    @boot.setter
    def boot(self, boot: int) -> None:
        self._identity.boot = boot

    def presence_bytes(self) -> int:
        """See `DeviceEnd`."""
        return len(self._identity.sign_presence(encode_payload(Presence(PresenceState.ONLINE, self.boot))))

    def request_bytes(self, kind: PayloadKind, payload: bytes, task: str = "") -> int:
        """See `DeviceEnd`."""
        return len(self._identity.sign_control(kind, payload, task))

    def enrolment(self, task: str) -> tuple[bytes, Parcel]:
        """See `DeviceEnd`."""
        signed = self._identity.sign_control(ENROLMENT, _enrolment(self._identity.public_key, task))
        return digest(signed), Message(self._identity.up_topic, signed)

    def address(self, kind: PayloadKind) -> tuple[int, bytes]:
        """See `DeviceEnd`."""
        return self._identity.address(kind)

    def sign_row(self, row: OutboxRow) -> bytes:
        """See `DeviceEnd`: the envelope."""
        return self._identity.sign_row(row)

    def parcel(self, row: OutboxRow, envelope: bytes) -> Parcel:
        """See `DeviceEnd`."""
        return Message(self._identity.up_topic, envelope)

    def receipt(self, data: bytes) -> Receipt:
        """See `DeviceEnd`."""
        receipt, _ = self._identity.verify_from_coordinator(self._identity.down_topic, data, MAX_CONTROL_BYTES)
        assert isinstance(receipt, Receipt)  # noqa: S101 - nothing else is sent there
        return receipt


class PlainMessages:
    """Payloads alone: no envelope is written, signed, parsed or verified. Admission decides as on signed messages."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self.updates = UpdatesUnderWay()
        self.signer: MessageSigner = PlainSigner(SigningKey(_secret(seed, COORDINATOR)), FLEET, SHARD)

    def end(self, number: int) -> DeviceEnd:
        """See `Messages`."""
        name = device_name(number)
        return PlainEnd(name, _secret(self._seed, name))


@dataclass(frozen=True, slots=True)
class PlainSigner(MessageSigner):
    """Signs nothing."""

    def envelope(
        self, topic: str, kind: PayloadKind, payload: msgspec.Struct, *, sequence: int, task: str = ""
    ) -> bytes:
        """The payload alone."""
        return OwnPayload.of(payload)


class PlainEnd:
    """See `DeviceEnd`; `public_key` (32 bytes) is no key that anything was signed with."""

    __slots__ = ("_key_id", "_public_key", "boot", "device", "identity")

    def __init__(self, device: str, public_key: bytes) -> None:
        self.device = device
        self.identity: Identity | None = None
        self.boot = 0
        self._public_key = public_key
        self._key_id = key_id(public_key)

    def presence_bytes(self) -> int:
        """See `DeviceEnd`."""
        return len(encode_payload(Presence(PresenceState.ONLINE, self.boot)))

    def request_bytes(self, kind: PayloadKind, payload: bytes, task: str = "") -> int:
        """See `DeviceEnd`."""
        return len(payload)

    def enrolment(self, task: str) -> tuple[bytes, Parcel]:
        """See `DeviceEnd`."""
        named = digest(f"{self.device}/enrolment/{self.boot}".encode())
        header = Header(ENROLMENT, self.boot << BOOT_SHIFT, "", 0, b"")
        return named, self._parsed(header, _enrolment(self._public_key, task), named)

    def address(self, kind: PayloadKind) -> tuple[int, bytes]:
        """See `DeviceEnd`."""
        return kind.number, b""

    def sign_row(self, row: OutboxRow) -> bytes:
        """See `DeviceEnd`: its number."""
        return f"{self.device}/{row.sequence}".encode()

    def parcel(self, row: OutboxRow, envelope: bytes) -> Parcel:
        """See `DeviceEnd`."""
        header = Header(KINDS[row.kind], row.sequence, row.task, row.base_version, b"", row.generation)
        return self._parsed(header, row.payload, row.digest or digest(envelope))

    def receipt(self, data: bytes) -> Receipt:
        """See `DeviceEnd`."""
        payload = data.payload if isinstance(data, OwnPayload) else decode_payload(data, Receipt)
        assert isinstance(payload, Receipt)  # noqa: S101 - nothing else is sent there
        return payload

    def _parsed(self, header: Header, payload: bytes, named: bytes) -> ParsedMessage:
        message = Message(topics.up(FLEET, SHARD, self.device), payload)
        return ParsedMessage(message, named, self.device, Envelope(header, self._key_id, payload, b"", b""))


def device_name(number: int) -> str:
    """What the device with this number is called."""
    return f"d{number:05}"


def device_number(name: str) -> int:
    """The number of the device with this name."""
    return int(name.removeprefix("d"))


def _enrolment(public_key: bytes, task: str) -> bytes:
    return encode_payload(Enrolment(public_key, PROFILE, SOFTWARE, [task]))


def _secret(seed: int, name: str) -> bytes:
    """A key that follows from the seed: for simulation only."""
    return hashlib.sha256(f"{seed}/{name}".encode()).digest()
