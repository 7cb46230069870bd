"""One end of sessions as the relay and the other end know it: its name, its key, and the coordinator's. Pure."""

from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from fleet_protocol import topics
from fleet_protocol.envelope import Envelope, read_envelope, sign_envelope
from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.keys import SigningKey, VerifyKey, key_id
from fleet_protocol.kinds import Introduction, PayloadKind, decode_payload
from fleet_protocol.kinds.kind import Leaf
from fleet_protocol.limits import MAX_CONTROL_BYTES
from fleet_protocol.sessions.secrecy import hop_key


@dataclass(frozen=True, slots=True)
class Party:
    """A device or a helper. `next_number` gives the sequence numbers of what it signs, each above the one before."""

    fleet: str
    shard: str
    name: str
    key: SigningKey
    coordinator: VerifyKey
    next_number: Callable[[], int]

    @property
    def topic(self) -> str:
        """On which it sends to the relay."""
        return topics.session(self.fleet, self.shard, self.name)

    @property
    def relayed(self) -> str:
        """On which the relay sends to it."""
        return topics.relayed(self.fleet, self.shard, self.name)

    def topic_of(self, introduction: Introduction) -> str:
        """On which the other one that is introduced sends to the relay."""
        return topics.session(self.fleet, introduction.shard or self.shard, introduction.peer)

    def sign(
        self, kind: PayloadKind, payload: bytes, *, task: str = "", base_version: int = 0, generation: int = 0
    ) -> bytes:
        """The envelope of a message to the relay."""
        return sign_envelope(
            self.key,
            self.topic,
            kind,
            payload,
            sequence=self.next_number(),
            task=task,
            base_version=base_version,
            generation=generation,
        )

    def verify(self, data: bytes) -> msgspec.Struct:
        """The payload of what the relay has signed with the coordinator's key.

        Raises:
            ProtocolError: another key, topic or kind, a wrong signature, or malformed.
        """
        envelope = read_envelope(data, MAX_CONTROL_BYTES)
        if envelope.key_id != key_id(self.coordinator):
            raise ProtocolError(Reason.UNKNOWN_KEY, f"key {envelope.key_id.hex()} is not the pinned coordinator's")
        envelope.verify(self.coordinator, self.relayed)
        if envelope.header.kind.leaf is not Leaf.RELAYED:
            raise ProtocolError(Reason.MALFORMED, f"a relay does not send {envelope.header.kind.name}")
        return decode_payload(envelope.payload, envelope.header.kind.payload)

    def hop_key(self, session: bytes) -> bytes:
        """The key that its frames of a session are tagged with between it and the relay, 32 bytes."""
        return hop_key(self.key, self.coordinator, session)


def verified(message: bytes, kind: PayloadKind, public_key: bytes, topic: str) -> Envelope:
    """The envelope that the other end has signed.

    Raises:
        ProtocolError: another kind, key or topic, a wrong signature, or malformed.
    """
    envelope = read_envelope(message, kind.max_bytes)
    if envelope.header.kind is not kind:
        raise ProtocolError(Reason.MALFORMED, f"expected a {kind.name}, found a {envelope.header.kind.name}")
    key = VerifyKey(public_key)
    if envelope.key_id != key_id(key):
        raise ProtocolError(Reason.UNKNOWN_KEY, f"key {envelope.key_id.hex()} is not the one that the relay names")
    envelope.verify(key, topic)
    return envelope
