"""The device's identity: signs outgoing messages, and verifies incoming ones with the coordinator's pinned key."""

from itertools import count

import msgspec

from edge_agent.core.outbox import OutboxRow
from edge_agent.core.shard_choice import Place
from fleet_protocol import topics
from fleet_protocol.encryption import check_recipient, encrypt_payload
from fleet_protocol.envelope import read_envelope, sign_envelope
from fleet_protocol.errors import ConfigurationError, ProtocolError, Reason
from fleet_protocol.keys import SigningKey, VerifyKey, key_id, read_verify_key
from fleet_protocol.kinds import (
    FROM_COORDINATOR,
    KINDS,
    PRESENCE,
    PayloadKind,
    decode_payload,
)
from fleet_protocol.limits import BOOT_SHIFT
from fleet_protocol.moved_message import MovedMessage, write_moved
from fleet_protocol.sessions.party import Party
from secure_aggregation.messages import SealedSeeds
from secure_aggregation.signatures import signed


class NotReadableError(ProtocolError):
    """The coordinator has signed it, and this agent does not understand it: it is of a newer format."""

    def __init__(self, kind: PayloadKind, task: str, error: ProtocolError) -> None:
        super().__init__(error.reason, f"{error.detail}; the coordinator is newer than this agent: update edgeflock")
        self.kind, self.task = kind, task


class Identity:
    """The device's key and topics, and the coordinator's pinned key.

    What waits in the outbox is numbered by the database. Everything else is numbered `boot << 32 | counter`: it grows
    over the device's whole life without a commit per message. With `encrypt_updates` what leaves the outbox is
    encrypted for the coordinator. The topics are under the shard where the device is now (`move`).
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
        self.boot = 0
        self._key = key
        self.coordinator = read_verify_key(coordinator_key, "coordinator_key", "`broker-coordinator key` on the server")
        """The pinned key: nothing that another has signed is trusted."""
        self._fleet = fleet
        self.move(Place(shard, shard))
        self._counter = count(1)
        self._encrypts = encrypt_updates
        check_recipient(self.coordinator)

    def move(self, place: Place) -> None:
        """Speak and hear under the shard of `place` from now on, and sign what waits for the one that it names."""
        self.shard, device = place.shard, self.device
        self.up_topic = topics.up(self._fleet, place.shard, device)
        self.down_topic = topics.down(self._fleet, place.shard, device)
        self.state_topic = topics.state(self._fleet, place.shard, device)
        self.session_topic = topics.session(self._fleet, place.shard, device)
        self.relayed_topic = topics.relayed(self._fleet, place.shard, device)
        self._signs_for = place.signs_for

    def state_topic_in(self, shard: str) -> str:
        """Where this device's presence is retained under a shard."""
        return topics.state(self._fleet, shard, self.device)

    @property
    def encrypts(self) -> bool:
        """Whether what leaves the outbox is encrypted, as the device's owner demands."""
        return self._encrypts

    @property
    def public_key(self) -> bytes:
        """32 bytes."""
        return bytes(self._key.verify_key)

    @property
    def succession_topic(self) -> str:
        """Where the key that follows the pinned one is named."""
        return topics.key_succession(self._fleet, key_id(self.coordinator))

    @staticmethod
    def check_coordinator(key: VerifyKey) -> None:
        """Whether `key` could be the pinned one.

        Raises:
            ProtocolError: `MALFORMED`: it is no point of the curve; nobody can sign with it or encrypt for it.
        """
        try:
            check_recipient(key)
        except ConfigurationError as error:
            raise ProtocolError(Reason.MALFORMED, str(error)) from error

    def address(self, kind: PayloadKind) -> tuple[int, bytes]:
        """The number of the kind that `kind` is sent as, and the key it is encrypted for, as in `OutboxRow`.

        Raises:
            ConfigurationError: this device encrypts, and the kind has no encrypted form.
        """
        if not self._encrypts:
            return kind.number, b""
        return self.encrypted_address(kind)

    def encrypted_address(self, kind: PayloadKind) -> tuple[int, bytes]:
        """The same for what is encrypted whether or not this device encrypts its updates.

        Raises:
            ConfigurationError: the kind has no encrypted form.
        """
        for encrypted in KINDS.values():
            if encrypted.content is kind:
                return encrypted.number, bytes(self.coordinator)
        raise ConfigurationError(
            f"encrypt_updates: payloads of kind {kind.name} can't be encrypted; turn one of them off"
        )

    def sign_row(self, row: OutboxRow) -> bytes:
        """The envelope of a payload in the outbox: the same row gives the same bytes, wherever the device moves to
        meanwhile; `addressed` makes of it what is sent.
        """
        kind = KINDS[row.kind]
        payload = row.payload
        if kind.content is not None:
            recipient = VerifyKey(row.recipient) if row.recipient else self.coordinator
            payload = encrypt_payload(self._key, recipient, row.sequence, payload)
        return sign_envelope(
            self._key,
            topics.up(self._fleet, self._signs_for, self.device),
            kind,
            payload,
            sequence=row.sequence,
            task=row.task,
            base_version=row.base_version,
            generation=row.generation,
        )

    def addressed(self, envelope: bytes) -> bytes:
        """What is published of an envelope of the outbox: itself, or beside it the shard that it was signed for."""
        if self._signs_for == self.shard:
            return envelope
        return write_moved(MovedMessage(self._signs_for, envelope))

    def sign_seeds(self, seeds: SealedSeeds) -> bytes:
        """This device's signature of what is sealed for mask helpers, 64 bytes."""
        return signed(self._key, seeds).signature

    def sign_control(self, kind: PayloadKind, payload: bytes, task: str = "", generation: int = 0) -> bytes:
        """Sign a message that is not journalled."""
        return sign_envelope(
            self._key, self.up_topic, kind, payload, sequence=self._next(), task=task, generation=generation
        )

    def sign_to_neighbours(self, topic: str, kind: PayloadKind, payload: bytes, task: str, generation: int) -> bytes:
        """Sign what other devices are told on this device's own `topic`, about a task."""
        return sign_envelope(self._key, topic, kind, payload, sequence=self._next(), task=task, generation=generation)

    def sign_presence(self, payload: bytes) -> bytes:
        """Sign a presence, for the state topic."""
        return sign_envelope(self._key, self.state_topic, PRESENCE, payload, sequence=self._next())

    def party(self) -> Party:
        """This device, or helper, as an end of sessions; with the key that is pinned now."""
        return Party(self._fleet, self.shard, self.device, self._key, self.coordinator, self._next)

    def verify_from_coordinator(self, topic: str, data: bytes, limit: int) -> tuple[msgspec.Struct, str]:
        """The payload of a message that the pinned key signed for `topic`, and the task in its header.

        Raises:
            ProtocolError: too large, malformed, another key, an invalid signature, or a kind that a coordinator does
                not send. `NotReadableError`: verified, and of another format than this agent reads.
        """
        envelope = read_envelope(data, limit)
        if envelope.key_id != key_id(self.coordinator):
            raise ProtocolError(Reason.UNKNOWN_KEY, f"key {envelope.key_id.hex()} is not the pinned coordinator's")
        envelope.verify(self.coordinator, topic)
        kind = envelope.header.kind
        if kind.leaf not in FROM_COORDINATOR:
            raise ProtocolError(Reason.MALFORMED, f"a coordinator does not send {kind.name}")
        task = envelope.header.task
        try:
            return decode_payload(envelope.payload, kind.payload), task
        except ProtocolError as error:
            raise NotReadableError(kind, task, error) from error

    def _next(self) -> int:
        return self.boot << BOOT_SHIFT | next(self._counter)
