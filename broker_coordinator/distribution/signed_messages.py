"""Signing the coordinator's messages: receipts, manifests, rosters, queries, chunks, new keys and others. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from broker_coordinator.distribution.chunk_queue import Wanted
from fleet_protocol import topics
from fleet_protocol.chunks import chunk_bytes
from fleet_protocol.envelope import sign_envelope
from fleet_protocol.errors import Reason
from fleet_protocol.keys import SigningKey, VerifyKey, key_id
from fleet_protocol.kinds import (
    AUTHORITY_SUCCESSION,
    BLOB_CHUNK,
    INVITATION,
    KEY_SUCCESSION,
    MANIFEST,
    MASK_REQUEST,
    QUERIES,
    RECEIPT,
    ROSTER,
    AuthoritySuccession,
    BlobChunk,
    Invitation,
    KeySuccession,
    Manifest,
    MaskRequest,
    Outcome,
    PayloadKind,
    Queries,
    Receipt,
    Roster,
    encode_payload,
)
from fleet_protocol.shards import shard_of


class Publication(msgspec.Struct, frozen=True, gc=False):
    """One message to publish at QoS 1."""

    topic: str
    data: bytes
    retained: bool = False


@dataclass(frozen=True, slots=True)
class MessageSigner:
    """Signs with the coordinator's key, for the topics of one fleet and shard. `shards` are all that the fleet has, as
    manifests say it; empty where they say nothing of it.
    """

    key: SigningKey
    fleet: str
    shard: str
    shards: tuple[str, ...] = ()

    def receipt(
        self,
        device: str,
        digest: bytes,
        *,
        reason: Reason | None,
        detail: str,
        highest_sequence: int,
        newest_boot: int,
        cluster: int | None = None,
    ) -> Publication:
        """The receipt for one message from `device`: accepted where there is no `reason` against it. `cluster` is the
        one that the device is in, where the message is of a task with clusters.
        """
        outcome = Outcome.ACCEPTED if reason is None else Outcome.REJECTED
        why = reason.value if reason else ""
        receipt = Receipt(digest, outcome, why, detail, highest_sequence, newest_boot, cluster)
        topic = topics.down(self.fleet, self.shard, device)
        return Publication(topic, self.envelope(topic, RECEIPT, receipt, sequence=highest_sequence))

    def manifest(self, task: str, manifest: Manifest) -> Publication:
        """The retained message that names the current version of a task."""
        topic = topics.manifest(self.fleet, task)
        told = msgspec.structs.replace(manifest, shards=self.shards)
        signed = self.envelope(topic, MANIFEST, told, sequence=manifest.version, task=task)
        return Publication(topic, signed, retained=True)

    def invitation(self, task: str, invitation: Invitation) -> Publication:
        """The message that devices hear asleep."""
        topic = topics.invitation(self.fleet, task)
        signed = self.envelope(topic, INVITATION, invitation, sequence=invitation.version, task=task)
        return Publication(topic, signed)

    def queries(self, task: str, queries: Queries) -> Publication:
        """The retained message with all that is asked about a task's samples."""
        topic = topics.queries(self.fleet, task)
        signed = self.envelope(topic, QUERIES, queries, sequence=len(queries.asked), task=task)
        return Publication(topic, signed, retained=True)

    def roster(self, task: str, roster: Roster | None) -> Publication:
        """The retained message with the devices that learn a task by gossip; None clears it."""
        topic = topics.roster(self.fleet, task)
        if roster is None:
            return Publication(topic, b"", retained=True)
        signed = self.envelope(topic, ROSTER, roster, sequence=roster.number, task=task)
        return Publication(topic, signed, retained=True)

    def succession(self, successor: VerifyKey) -> Publication:
        """The retained message that lets devices which pin this key pin `successor` in its place."""
        topic = topics.key_succession(self.fleet, key_id(self.key.verify_key))
        succession = KeySuccession(bytes(successor))
        return Publication(topic, self.envelope(topic, KEY_SUCCESSION, succession, sequence=0), retained=True)

    def authorities(self, followed: bytes, authorities: Sequence[bytes]) -> Publication:
        """The retained message that lets devices which trust the set `followed` trust `authorities` in its place."""
        topic = topics.authority_succession(self.fleet, followed)
        succession = AuthoritySuccession(list(authorities))
        return Publication(topic, self.envelope(topic, AUTHORITY_SUCCESSION, succession, sequence=0), retained=True)

    def mask_request(self, helper: str, request: MaskRequest) -> Publication:
        """The message that asks a mask helper about a set, in the shard that it belongs to."""
        topic = topics.down(self.fleet, shard_of(helper, self.shards or (self.shard,)), helper)
        return Publication(topic, self.envelope(topic, MASK_REQUEST, request, sequence=0))

    def chunk(self, wanted: Wanted, content: bytes, number: int) -> Publication:
        """Chunk `number` of `content`, which is what is `wanted`."""
        topic = topics.chunk(self.fleet, wanted, number)
        chunk = BlobChunk(len(content), chunk_bytes(content, number))
        return Publication(topic, self.envelope(topic, BLOB_CHUNK, chunk, sequence=number))

    def envelope(
        self, topic: str, kind: PayloadKind, payload: msgspec.Struct, *, sequence: int, task: str = ""
    ) -> bytes:
        """A payload as it travels on a topic: signed."""
        return sign_envelope(self.key, topic, kind, encode_payload(payload), sequence=sequence, task=task)
