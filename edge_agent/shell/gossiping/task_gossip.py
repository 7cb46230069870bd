"""One task that this device learns among neighbours: its roster, its state in agent.db, and its talk."""

from collections import Counter

from edge_agent.core.gossip.place_in_roster import is_newer, neighbours_in, why_no_part
from edge_agent.core.gossip.state import CHANGE, WHOLE, last_told, most_told_bytes, whole_copy
from edge_agent.core.gossip.status import GossipStatus, NeighbourStatus
from edge_agent.core.gossip.talk import OwnStanding, Talk
from edge_agent.shell.connection.identity import Identity
from edge_agent.shell.storage.device_database import DeviceDatabase, KeptOfRound
from edge_agent.worker.contract import GossipJob, GossipRound
from fleet_protocol.envelope import read_envelope
from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.keys import VerifyKey
from fleet_protocol.kinds import (
    COPY_REQUEST,
    TOLD,
    CopyRequest,
    PayloadKind,
    Roster,
    Told,
    decode_payload,
    encode_payload,
)
from fleet_protocol.limits import KIB
from fleet_protocol.task_description import TaskDescription

NOT_ENCRYPTED = (
    "agent.toml has encrypt_updates = true, and the broker and all devices can read what neighbours are told; turn it"
    " off where they may, or leave this task out"
)
OTHER_GENERATION = "other_generation"
"""The word, among reasons, for what is of another generation of the task."""
ENVELOPE_BYTES = KIB
"""Around a payload, at most."""


class TaskGossip:
    """Of the task's `bundle`. `refused` counts what came and was not taken, by reason."""

    def __init__(self, description: TaskDescription, bundle: str, identity: Identity, database: DeviceDatabase) -> None:
        self.task = description.task
        self.bundle = bundle
        self.refused: Counter[str] = Counter()
        self.why_not: str | None = None
        """Why this device trains nothing now, in words; None where it does."""
        self._parameters = description.parameter_count
        self._identity = identity
        self._database = database
        self._states = database.gossip_states
        self._keys: dict[str, VerifyKey] = {}
        self.talk = Talk(identity.device, most_told_bytes(self._parameters))
        self.roster = database.rosters.read(self.task)
        self.talk.stand(OwnStanding.of(self._states.head(self.task, bundle)))
        self._meet()

    @property
    def most_message_bytes(self) -> int:
        """Of what a neighbour may send."""
        return most_told_bytes(self._parameters) + ENVELOPE_BYTES

    def follow(self, roster: Roster) -> bool:
        """Take a verified roster; False where the one that is known is as new.

        Raises:
            sqlite3.Error: the disk.
        """
        if not is_newer(self.roster, roster):
            return False
        self._database.rosters.write(self.task, roster)
        if self.roster is not None and roster.generation > self.roster.generation:
            self.talk.connected()  # those that were behind, or ahead, have not taken what was told last
        self.roster = roster
        self._meet()
        return True

    def hear(self, topic: str, neighbour: str, data: bytes, now: float) -> bool:
        """Take what a neighbour has published on its topic; whether it says that this device's state was put back.

        Raises:
            ProtocolError: it is none's, or not what a neighbour may say.
        """
        if neighbour not in self._keys or self.roster is None:
            raise ProtocolError(Reason.WRONG_RECIPIENT, "it is no neighbour of this device")
        envelope = read_envelope(data, self.most_message_bytes)
        envelope.verify(self._keys[neighbour], topic)
        header = envelope.header
        if header.task != self.task:
            raise ProtocolError(Reason.MALFORMED, f"it is of task {header.task!r}, on a topic of {self.task!r}")
        if header.generation != self.roster.generation:
            self.refused[OTHER_GENERATION] += 1  # one of both has not heard of the newest roster yet
            return False
        if header.kind is COPY_REQUEST:
            return self.talk.asked(decode_payload(envelope.payload, CopyRequest), now)
        if header.kind is not TOLD:
            raise ProtocolError(Reason.MALFORMED, f"a neighbour does not send {header.kind.name}")
        self.talk.hear(neighbour, decode_payload(envelope.payload, Told), now)
        return False

    def to_publish(self, topic: str, now: float) -> list[bytes]:
        """What is due on this device's own topic, signed.

        Raises:
            sqlite3.Error: the disk.
        """
        say = self.talk.to_say(now)
        messages = [self._signed(topic, COPY_REQUEST, encode_payload(request)) for request in say.requests]
        if (say.change or say.whole) and (told := self._told(whole=say.whole)) is not None:
            messages.append(self._signed(topic, TOLD, encode_payload(told)))
        return messages

    def job(self) -> GossipJob:
        """Among whom the next round is, and what it hears. Only where there is no `why_not`."""
        roster = self.roster
        if roster is None:
            raise RuntimeError("a round without a roster")
        names = [each.name for each in roster.members]
        return GossipJob(
            device=self._identity.device,
            names=names,
            topology=roster.topology,
            seed=roster.seed,
            rule=roster.rule,
            heard=self.talk.take_out(),
            anew=self.talk.was_put_back,
            kept=self._states.read(self.task, self.bundle),
        )

    def commit(self, ended: GossipRound, now: float) -> None:
        """Store what a round has left, in one transaction, and let the talk go on from it.

        Raises:
            sqlite3.Error, OSError: the disk.
        """
        kept = KeptOfRound(gossip=ended.changed)
        self._database.withhold(self.task, self.bundle, ended.trained_through, ended.epochs, kept)
        self.refused.update(each.reason for each in ended.refused)
        self.talk.round_ended(OwnStanding.of(self._states.head(self.task, self.bundle)), told=ended.told, now=now)

    def status(self, now: float, *, is_complete: bool) -> GossipStatus:
        """As people and programs on the device see it."""
        roster, talk, own = self.roster, self.talk, self.talk.own
        return GossipStatus(
            roster.number if roster else 0,
            len(roster.members) if roster else 0,
            own.rounds,
            own.number,
            {name: self._status_of(name, now) for name in talk.neighbours},
            dict(sorted(self.refused.items())),
            self.why_not or "",
            is_complete,
        )

    def _status_of(self, name: str, now: float) -> NeighbourStatus:
        heard_at, own = self.talk.heard_at(name), self.talk.own
        at_round = own.at_rounds.get(name)
        return NeighbourStatus(
            None if heard_at is None else round(now - heard_at, 1),
            None if at_round is None else own.rounds - at_round,
            own.distances.get(name),
        )

    def _told(self, *, whole: bool) -> Told | None:
        """What this device has told: the last change, or all of them; None where that is lost."""
        head = self._states.head(self.task, self.bundle)
        if head is None:
            return None
        parts = {} if whole else self._states.read(self.task, self.bundle, CHANGE)
        parts = parts or self._states.read(self.task, self.bundle, WHOLE)
        return (whole_copy if whole else last_told)(head, parts) if parts else None

    def _meet(self) -> None:
        """Whoever is a neighbour by the roster, where this device has a part."""
        roster, device = self.roster, self._identity.device
        self.why_not = why_no_part(roster, device, self._identity.public_key, self.bundle)
        if self._identity.encrypts:
            self.why_not = NOT_ENCRYPTED
        each = neighbours_in(roster, device).each if roster and self.why_not is None else []
        members = {member.name: member.public_key for member in roster.members} if roster else {}
        self._keys = {name: VerifyKey(members[name]) for name in each}
        self.talk.meet(each)

    def _signed(self, topic: str, kind: PayloadKind, payload: bytes) -> bytes:
        generation = self.roster.generation if self.roster else 0
        return self._identity.sign_to_neighbours(topic, kind, payload, self.task, generation)
