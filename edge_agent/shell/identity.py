"""Who this device is, and whom it believes: signs what goes out, verifies what comes in."""

from itertools import count

import msgspec

from fleet_protocol import topics
from fleet_protocol.encryption import check_recipient, encrypt_payload
from fleet_protocol.envelope import digest, read_envelope, sign_envelope
from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.keys import SigningKey, key_id, read_verify_key
from fleet_protocol.kinds import (
    BOOT_SHIFT,
    ENCRYPTED_UPDATE,
    FROM_COORDINATOR,
    PRESENCE,
    UPDATE,
    PayloadKind,
    decode_payload,
)


class Identity:
    """The device's key and topics, and the coordinator's pinned key.

    Updates are numbered by the database. Everything else is numbered `boot << 32 | counter`: it grows over the
    device's whole life without a commit per message. With `encrypt_updates` only the coordinator can read an update.
    """

    def __init__(
        self,
        fleet: str,
        shard: str,
        device: str,
        key: SigningKey,
        coordinator_key: str,
        *,
        encrypt_updates: bool = False,
    ) -> None:
        self.device = device
        self.up_topic = topics.up(fleet, shard, device)
        self.down_topic = topics.down(fleet, shard, device)
        self.state_topic = topics.state(fleet, shard, device)
        self.boot = 0
        self._key = key
        self._coordinator = read_verify_key(coordinator_key, "coordinator_key")
        self._coordinator_id = key_id(self._coordinator)
        self._counter = count(1)
        self._encrypt_updates = encrypt_updates
        if encrypt_updates:
            check_recipient(self._coordinator)

    @property
    def public_key(self) -> bytes:
        """32 bytes."""
        return bytes(self._key.verify_key)

    def sign_update(self, sequence: int, task: str, base_version: int, payload: bytes) -> tuple[bytes, bytes]:
        """An update's envelope, and the digest that its receipt will name."""
        signed = sign_envelope(
            self._key,
            self.up_topic,
            ENCRYPTED_UPDATE if self._encrypt_updates else UPDATE,
            encrypt_payload(self._coordinator, payload) if self._encrypt_updates else payload,
            sequence=sequence,
            task=task,
            base_version=base_version,
        )
        return signed, digest(signed)

    def sign_control(self, kind: PayloadKind, payload: bytes, task: str = "") -> bytes:
        """Any other message to the coordinator."""
        return sign_envelope(self._key, self.up_topic, kind, payload, sequence=self._next(), task=task)

    def sign_presence(self, payload: bytes) -> bytes:
        """A presence, for the state topic."""
        return sign_envelope(self._key, self.state_topic, PRESENCE, payload, sequence=self._next())

    def open_from_coordinator(self, topic: str, data: bytes, limit: int) -> tuple[msgspec.Struct, str]:
        """The payload of a message that the pinned key signed for `topic`, and the task in its header.

        Raises:
            ProtocolError: too large, malformed, another key, a signature that does not hold, or a kind that a
                coordinator does not send.
        """
        envelope = read_envelope(data, limit)
        if envelope.key_id != self._coordinator_id:
            raise ProtocolError(Reason.UNKNOWN_KEY, f"key {envelope.key_id.hex()} is not the pinned coordinator's")
        envelope.verify(self._coordinator, topic)
        kind = envelope.header.kind
        if kind.leaf not in FROM_COORDINATOR:
            raise ProtocolError(Reason.MALFORMED, f"a coordinator does not send {kind.name}")
        return decode_payload(envelope.payload, kind.payload), envelope.header.task

    def _next(self) -> int:
        return self.boot << BOOT_SHIFT | next(self._counter)
