"""The messages that a device would publish, without a broker: signed by the shipped `Identity`."""

import math

import numpy as np

from edge_agent.core.outbox import OutboxRow
from edge_agent.shell.connection.identity import Identity
from fleet_protocol.codec import encode_update
from fleet_protocol.envelope import digest, sign_envelope
from fleet_protocol.keys import SigningKey, VerifyKey, write_verify_key
from fleet_protocol.kinds import (
    BLOB_REQUEST,
    ENROLMENT,
    UPDATE,
    WEIGHTS_REQUEST,
    BlobRequest,
    Enrolment,
    PayloadKind,
    Presence,
    PresenceState,
    Update,
    WeightsRequest,
    encode_payload,
)
from fleet_protocol.update_plan import UpdatePlan
from tests.support.bundles import TASK
from tests.support.fleet import FLEET, SHARD

Shapes = tuple[tuple[int, ...], ...]
TINY_SHAPES: Shapes = ((4, 8), (4,))
"""Those of the tiny task's parameters."""


def packed_delta(seed: int, shapes: Shapes = TINY_SHAPES) -> bytes:
    """A small random change of the weights, as an update carries it."""
    generator = np.random.default_rng(seed)
    delta = generator.normal(0, 0.1, sum(map(math.prod, shapes))).astype(np.float32)
    return encode_update(delta, shapes, UpdatePlan(keep_fraction=0.5), generator).packed


class SigningDevice:
    """A name and a key: makes the bytes that such a device would publish."""

    def __init__(
        self,
        name: str,
        key: SigningKey | None = None,
        *,
        coordinator_key: VerifyKey | None = None,
        shard: str = SHARD,
    ) -> None:
        """`coordinator_key` is needed by a device that verifies its coordinator's messages; one that only signs pins
        its own key."""
        self.name, self.key, self.shard = name, key or SigningKey.generate(), shard
        self.identity = self._identity(coordinator_key or self.key.verify_key)

    def _identity(self, coordinator_key: VerifyKey, *, encrypt_updates: bool = False) -> Identity:
        pinned = write_verify_key(coordinator_key)
        return Identity(FLEET, self.shard, self.name, self.key, pinned, encrypt_updates=encrypt_updates)

    @property
    def up(self) -> str:
        """The topic on which it speaks."""
        return self.identity.up_topic

    @property
    def state(self) -> str:
        """The topic of its presence."""
        return self.identity.state_topic

    def sign(
        self, kind: PayloadKind, payload: bytes, *, topic: str | None = None, sequence: int = 1, **header
    ) -> bytes:
        """Any message with any sequence number, also one that no honest device would send; for `up` unless told."""
        return sign_envelope(self.key, topic or self.up, kind, payload, sequence=sequence, **header)

    def enrolment(self) -> bytes:
        """The signed enrolment."""
        enrolment = Enrolment(self.identity.public_key, "generic", "test 1.0", [TASK])
        return self.identity.sign_control(ENROLMENT, encode_payload(enrolment))

    def presence(self, state: PresenceState, boot: int) -> bytes:
        """The signed presence."""
        self.identity.boot = boot
        return self.identity.sign_presence(encode_payload(Presence(state, boot)))

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
        steps: int = 1,
        loss: float = 0.5,
        packed: bytes | None = None,
        life: int = 0,
        recipient: VerifyKey | None = None,
        shapes: Shapes = TINY_SHAPES,
        generation: int = 0,
        held: tuple[int, ...] = (),
        cluster: int = 0,
        noise: float | None = None,
    ) -> bytes:
        """An update, encrypted for `recipient` if any; its delta differs from one device and sequence to the next."""
        if packed is None:
            packed = packed_delta(int.from_bytes(digest(f"{self.name} {sequence}".encode()), "big"), shapes)
        signer = self._identity(recipient, encrypt_updates=True) if recipient else self.identity
        kind, encrypted_for = signer.address(UPDATE)
        payload = encode_payload(Update(samples, steps, loss, packed, life, held, cluster, noise))
        row = OutboxRow(sequence, kind, task, "", base_version, encrypted_for, payload, generation=generation)
        return signer.sign_row(row)
