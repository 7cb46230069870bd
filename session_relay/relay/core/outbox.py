"""The relay's own messages, signed with the coordinator's key, until they are published. Pure."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count

import msgspec

from fleet_protocol import topics
from fleet_protocol.envelope import sign_envelope
from fleet_protocol.keys import SigningKey
from fleet_protocol.kinds import INTRODUCTION, SESSION_NOTICE, Introduction, PayloadKind, SessionNotice, encode_payload
from fleet_protocol.shards import shard_of
from session_relay.relay.core.limits import MAX_CONTROL_WAITING


@dataclass(frozen=True, slots=True)
class Publication:
    """One message to publish."""

    topic: str
    data: bytes


@dataclass(slots=True)
class Outbox:
    """At most `MAX_CONTROL_WAITING` wait; an older one gives way, and its reader asks again. Of a fleet with several
    shards, each device or helper is answered in the one where it has spoken last, and until then in its own.
    """

    key: SigningKey
    fleet: str
    shards: Sequence[str]
    waiting: deque[Publication] = field(default_factory=lambda: deque(maxlen=MAX_CONTROL_WAITING))
    _numbers: "count[int]" = field(default_factory=lambda: count(1))
    _places: dict[str, str] = field(default_factory=dict)

    def note_spoken(self, name: str, shard: str) -> None:
        """A message has come that `name` has proved to be its own, under `shard`."""
        self._places[name] = shard

    def shard_of(self, name: str) -> str:
        """Where a device or helper is answered."""
        if (place := self._places.get(name)) is None:
            place = self._places[name] = shard_of(name, self.shards)
        return place

    def topic(self, name: str) -> str:
        """On which a device or helper hears the relay."""
        return topics.relayed(self.fleet, self.shard_of(name), name)

    def introduce(self, name: str, introduction: Introduction) -> None:
        """Name the other end of a session to `name`."""
        if introduction.shard == self.shard_of(name):
            introduction = msgspec.structs.replace(introduction, shard="")
        self._sign(name, INTRODUCTION, introduction)

    def notify(self, name: str, notice: SessionNotice) -> None:
        """Tell `name` what became of a session."""
        self._sign(name, SESSION_NOTICE, notice)

    def _sign(self, name: str, kind: PayloadKind, payload: msgspec.Struct) -> None:
        topic = self.topic(name)
        signed = sign_envelope(self.key, topic, kind, encode_payload(payload), sequence=next(self._numbers))
        self.waiting.append(Publication(topic, signed))
