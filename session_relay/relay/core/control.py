"""Signed messages of devices and helpers: who may send them, and what follows. Pure."""

from dataclasses import dataclass, field

from fleet_host.rate_limit import RateLimit
from fleet_protocol import topics
from fleet_protocol.envelope import Envelope, read_envelope
from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.keys import VerifyKey, key_id
from fleet_protocol.kinds import (
    HelperOffer,
    News,
    OfferedTask,
    Presence,
    PresenceState,
    SessionEnding,
    SessionGrant,
    SessionNotice,
    SessionOpening,
    SessionReason,
    SessionRefusal,
    SessionResumption,
    decode_payload,
)
from fleet_protocol.kinds.kind import Leaf
from fleet_protocol.kinds.session_fields import NO_SESSION
from fleet_protocol.limits import BOOT_SHIFT, MAX_CONTROL_BYTES
from session_relay.relay.core.carried_session import CarriedSession
from session_relay.relay.core.lifecycle import Event, State
from session_relay.relay.core.limits import (
    CONTROL_BURST,
    CONTROL_SECONDS,
    HELPER_CONTROL_BURST,
    HELPER_CONTROL_SECONDS,
    HELPER_RETRY_SECONDS,
    RETRY_SECONDS,
    UNKNOWN_SECONDS,
)
from session_relay.relay.core.openings import MAX_DEVICES_REMEMBERED, OpeningRefusedError, Openings
from session_relay.relay.core.session_book import SessionBook, Why


def _limit(seconds: float, burst: int) -> RateLimit:
    return RateLimit(seconds, MAX_DEVICES_REMEMBERED, burst=burst)


@dataclass(slots=True)
class ControlDesk:
    """Takes signed messages."""

    book: SessionBook
    openings: Openings
    _of_devices: RateLimit = field(default_factory=lambda: _limit(CONTROL_SECONDS, CONTROL_BURST))
    _of_helpers: RateLimit = field(default_factory=lambda: _limit(HELPER_CONTROL_SECONDS, HELPER_CONTROL_BURST))
    _unknown: RateLimit = field(default_factory=lambda: _limit(UNKNOWN_SECONDS, burst=1))

    def may_ask(self, name: str, now: float) -> bool:
        """Whether another message of `name` is looked at, which costs as much as a signature."""
        limit = self._of_helpers if name in self.book.directory.helpers else self._of_devices
        return limit.allows(name, now)

    def may_hear_unknown(self, name: str, now: float) -> bool:
        """Whether it is time to tell `name` that a session is not known. Of an allowance of its own: who has sent many
        frames to a relay that has started again may still ask it to resume.
        """
        return self._unknown.allows(name, now)

    def receive(self, name: str, shard: str, data: bytes, now: float) -> None:
        """Take in a message on the topic of an approved device or helper under `shard`.

        Raises:
            ProtocolError: its key has not signed it for this topic, or it is malformed.
        """
        topic = topics.session(self.book.outbox.fleet, shard, name)
        envelope = _verified(data, self.book.directory.devices[name], topic, Leaf.SESSION)
        self.book.outbox.note_spoken(name, shard)
        match decode_payload(envelope.payload, envelope.header.kind.payload):
            case HelperOffer() as offer:
                self._note_offer(name, offer, envelope.header.sequence, now)
            case SessionOpening() as opening:
                self.openings.ask(name, envelope.header, opening, data, now)
            case SessionGrant(session=session):
                self._note_grant(name, session, data, now)
            case SessionRefusal() as refusal:
                self._note_refusal(name, refusal, now)
            case SessionEnding() as ending:
                self._note_ending(name, ending, now)
            case SessionResumption(role="device") as resumption:
                self.openings.note_sequence(name, envelope.header.sequence)
                self._resume_device(name, resumption, envelope.header.task, now)
            case SessionResumption() as resumption:
                self._resume_helper(name, resumption, now)

    def note_presence(self, name: str, shard: str, data: bytes, now: float) -> None:
        """Take in a presence: a helper whose last will it is has gone.

        Raises:
            ProtocolError: as `receive`.
        """
        helper = self.book.helpers.get(name)
        if helper is None:
            return
        topic = topics.state(self.book.outbox.fleet, shard, name)
        envelope = _verified(data, self.book.directory.devices[name], topic, Leaf.STATE)
        presence = decode_payload(envelope.payload, Presence)
        if presence.state is PresenceState.OFFLINE and presence.boot >= helper.boot:
            self.lose_helper(name, helper_gone(f"helper {name} has lost its connection"), now)

    def lose_helper(self, name: str, why: Why, now: float) -> None:
        """A helper is gone: its sessions move to others."""
        self.book.helpers.remove(name)
        for session in self.book:
            if session.helper == name and session.state is State.OFFERED:
                self.openings.try_next(session, why, now)
            elif session.helper == name:
                self.book.step(session, Event.HELPER_GONE, now, why)

    def _note_offer(self, name: str, offer: HelperOffer, sequence: int, now: float) -> None:
        if name not in self.book.directory.helpers:
            detail = f"{name} is not allowed as a helper; on the server: broker-coordinator helpers allow {name}"
            self.book.counters.count_refusal(SessionReason.NOT_APPROVED)
            notice = SessionNotice(NO_SESSION, News.REFUSED, SessionReason.NOT_APPROVED, detail, RETRY_SECONDS)
            self.book.outbox.notify(name, notice)
            return
        known = self.book.helpers.get(name)
        if not self.book.helpers.has_room_for(name) or (known and sequence <= known.sequence):
            return
        if known and sequence >> BOOT_SHIFT > known.boot:
            self.lose_helper(name, helper_gone(f"helper {name} has started again"), now)
        known = self.book.helpers.get(name)
        # A relay that has started again carries sessions of helpers whose first offer is still to come.
        load = known.load if known else self.book.count_of(name)
        self.book.helpers.note(name, offer, sequence, load, now)

    def _note_grant(self, name: str, session_name: bytes, data: bytes, now: float) -> None:
        session = self._of_helper(name, session_name)
        if session is None:
            # Asked by a repeated introduction of long ago, or too late: it would keep a place for nobody.
            notice = SessionNotice(session_name, News.ENDED, SessionReason.UNKNOWN_SESSION)
            self.book.outbox.notify(name, notice)
        elif self.book.step(session, Event.GRANTED, now):
            session.grant, session.grant_shard = data, self.book.outbox.shard_of(name)
            self.book.counters.opened += 1
            self.openings.introduce_helper(session)

    def _note_refusal(self, name: str, refusal: SessionRefusal, now: float) -> None:
        session = self._of_helper(name, refusal.session)
        if session and session.state is State.OFFERED:
            # No helper keeps a device away for long: another one may come.
            why = Why(refusal.reason, refusal.detail, min(refusal.retry_seconds, RETRY_SECONDS))
            self.openings.try_next(session, why, now)

    def _note_ending(self, name: str, ending: SessionEnding, now: float) -> None:
        session = self.book.get(ending.session)
        # A device has to know whether it was the helper that went, or whether it only says so.
        says_gone = ending.reason == SessionReason.HELPER_GONE
        why = Why(SessionReason.LEFT if says_gone else ending.reason, ending.detail)
        if session and name == session.device:
            self.book.step(session, Event.DEVICE_LEFT, now, why)
        elif session and name == session.helper and session.state is State.OFFERED:
            self.openings.try_next(session, why, now)
        elif session and name == session.helper:
            self.book.step(session, Event.HELPER_LEFT, now, why)

    def _resume_device(self, name: str, resumption: SessionResumption, task: str, now: float) -> None:
        session = self.book.get(resumption.session)
        if session is None:
            self._begin_resuming(name, resumption, task, now)
        elif session.device == name and session.helper == resumption.peer:
            if session.state is State.OPEN:
                self.book.step(session, Event.RESUMED, now)
            elif session.state is State.RESUMING:
                self._ask_to_resume(session)

    def _begin_resuming(self, name: str, resumption: SessionResumption, task: str, now: float) -> None:
        served, peer = self.book.directory.tasks.get(task), resumption.peer
        why = None
        if served is None or peer not in self.book.directory.helpers or peer == name:
            why = Why(SessionReason.HELPER_GONE, f"{peer} is no helper for {task} any more")
        else:
            try:
                self.openings.check_room(name)
            except OpeningRefusedError as refused:
                why = refused.why
        if why or served is None:
            why = why or Why(SessionReason.UNKNOWN_TASK)
            self.book.outbox.notify(name, SessionNotice(resumption.session, News.MOVED, why.reason, why.detail))
            return
        offered = OfferedTask(task, served.bundle, served.generation)
        session = CarriedSession(resumption.session, name, peer, offered, b"", now, State.RESUMING)
        session.limits = [None, None]
        self.book.add(session)
        self._ask_to_resume(session)

    def _ask_to_resume(self, session: CarriedSession) -> None:
        self.book.outbox.notify(session.helper, SessionNotice(session.name, News.RESUME))

    def _resume_helper(self, name: str, resumption: SessionResumption, now: float) -> None:
        session = self._of_helper(name, resumption.session)
        if session is None or session.state is not State.RESUMING:
            return
        if resumption.peer == session.device:
            self.book.step(session, Event.RESUMED, now)
            self.book.counters.resumed += 1
        else:
            detail = f"helper {name} has this session with another device"
            self.book.step(session, Event.HELPER_LEFT, now, Why(SessionReason.UNKNOWN_SESSION, detail))

    def _of_helper(self, name: str, session: bytes) -> CarriedSession | None:
        found = self.book.get(session)
        return found if found and found.helper == name else None


def helper_gone(detail: str) -> Why:
    """What devices are told of a helper that is gone."""
    return Why(SessionReason.HELPER_GONE, detail, HELPER_RETRY_SECONDS)


def _verified(data: bytes, key: VerifyKey, topic: str, leaf: Leaf) -> Envelope:
    envelope = read_envelope(data, MAX_CONTROL_BYTES)
    kind = envelope.header.kind
    if kind.leaf is not leaf or len(data) > kind.max_bytes:
        raise ProtocolError(Reason.MALFORMED, f"{kind.name} of {len(data)} bytes does not belong on {topic}")
    if envelope.key_id != key_id(key):
        raise ProtocolError(Reason.UNKNOWN_KEY, f"key {envelope.key_id.hex()} is not the one of {topic}")
    envelope.verify(key, topic)
    return envelope
