"""All sessions of one helper: what it offers, who asks it for a session, and to which session a frame belongs.

Pure: bytes and times come in, events and bytes to publish go out. After every call, publish what `outgoing` gives; at
`deadline`, call `pass_time`.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final

from fleet_protocol.envelope import digest
from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.kinds import (
    HELPER_OFFER,
    SESSION_ENDING,
    SESSION_GRANT,
    SESSION_OPENING,
    SESSION_REFUSAL,
    SESSION_RESUMPTION,
    HelperOffer,
    Introduction,
    News,
    OfferedTask,
    PayloadKind,
    SessionEnding,
    SessionGrant,
    SessionNotice,
    SessionOpening,
    SessionReason,
    SessionRefusal,
    SessionResumption,
    decode_payload,
    encode_payload,
    session_fields,
)
from fleet_protocol.limits import MAX_HELPER_SESSIONS
from fleet_protocol.sessions.channel import Channel
from fleet_protocol.sessions.events import Asked, Closed, HelperEvent, OfferRefused, Outgoing, Wanted
from fleet_protocol.sessions.frames import is_frame, session_of
from fleet_protocol.sessions.helper_end import HelperEnd
from fleet_protocol.sessions.lifecycle import Event
from fleet_protocol.sessions.party import Party, verified
from fleet_protocol.sessions.secrecy import SECRET_BYTES, Direction, Introduced, ephemeral_of, session_keys

OFFER_SECONDS: Final = 20.0
"""How often an offer is made again: a helper's sign of life to the relay."""
SESSIONS_REMEMBERED: Final = 1_000
"""That are over: nobody opens one of them again by repeating an old message."""
BUSY_SECONDS: Final = 30


class HelperSessions:
    """The helper's side of every session. `randomness` gives so many random bytes."""

    def __init__(self, party: Party, randomness: Callable[[int], bytes]) -> None:
        self._party, self._randomness = party, randomness
        self._sessions: dict[bytes, HelperEnd] = {}
        self._openings: dict[bytes, tuple[Introduced, bytes]] = {}
        self._over: OrderedDict[bytes, None] = OrderedDict()
        self._offer: HelperOffer | None = None
        self._offered_at = 0.0
        self._control: list[bytes] = []

    def __len__(self) -> int:
        """How many there are, asked for or open."""
        return len(self._sessions)

    def offer(self, tasks: Sequence[OfferedTask], capacity: int, now: float) -> None:
        """Offer to serve these tasks, in place of those before; repeated from now on."""
        self._offer = HelperOffer(list(tasks), capacity)
        self._send_offer(now)

    def reconnected(self, now: float) -> None:
        """Note that the connection to the broker was lost and is there again."""
        self._send_offer(now)

    def receive(self, data: bytes, now: float) -> list[HelperEvent]:
        """Take in what the relay has sent; what is of no session here gives nothing.

        Raises:
            ProtocolError: it is not from this helper's relay, or not from the session's device.
        """
        if is_frame(data):
            end = self._sessions.get(session_of(data))
            return self._swept(end.receive(data, now)) if end else []
        match self._party.verify(data):
            case Introduction() as introduction:
                return self._asked(introduction, now)
            case SessionNotice(session=session_fields.NO_SESSION, news=News.REFUSED) as notice:
                return [OfferRefused(notice.reason, notice.detail)]
            case SessionNotice(news=News.ENDED | News.MOVED | News.REFUSED) as notice:
                return self._close(notice.session, Event.ENDED, notice.reason, notice.detail)
            case SessionNotice(news=News.RESUME) as notice:
                self._resume(notice.session)
        return []

    def grant(self, session: bytes, now: float) -> None:
        """Take a session that a device has asked for.

        Raises:
            ValueError: none such waits.
            ProtocolError: the device's keys are of no use; refuse the session.
        """
        if session not in self._openings:
            raise ValueError(f"session {session.hex()} was not asked for, or is granted already")
        end = self._sessions[session]
        device, opening = self._openings[session]
        secret = self._randomness(SECRET_BYTES)
        helper = Introduced(bytes(self._party.key.verify_key), ephemeral_of(secret))
        keys = session_keys(session, secret, device.ephemeral, device, helper)
        channel = Channel(session, Direction.FROM_HELPER, keys, self._party.hop_key(session), now)
        grant = SessionGrant(session, opening, helper.ephemeral)
        end.open(channel, self._party.sign(SESSION_GRANT, encode_payload(grant), task=end.wanted.task))
        del self._openings[session]
        self._control.append(end.grant)

    def refuse(self, session: bytes, reason: str, detail: str, retry_seconds: int) -> None:
        """Don't take it."""
        if self._sessions.pop(session, None):
            self._openings.pop(session, None)
            self._send(SESSION_REFUSAL, encode_payload(SessionRefusal(session, reason, detail, retry_seconds)))

    def answer(self, session: bytes, number: int, message: bytes) -> None:
        """Answer a request; one of a session that is over is dropped.

        Raises:
            ValueError: no such request waits, or the message is too long.
        """
        if end := self._sessions.get(session):
            end.answer(number, message)

    def end(self, session: bytes, reason: str, detail: str = "") -> list[HelperEvent]:
        """End a session."""
        return self._close(session, Event.LEFT, reason, detail)

    def renew(self, party: Party, why: str) -> list[HelperEvent]:
        """Speak as `party` from now on, of another key of the coordinator's or shard: every session is over."""
        closed = [self._close(session, Event.ENDED, SessionReason.REPLACED, why) for session in list(self._sessions)]
        self._party = party
        return [event for each in closed for event in each]

    def pass_time(self, now: float) -> list[HelperEvent]:
        """Offer again, and end sessions whose device has not been heard for too long."""
        if now >= self._offered_at + OFFER_SECONDS:
            self._send_offer(now)
        silent = [each for each in self._sessions.values() if each.is_silent(now)]
        events = [self._close(each.session, Event.SILENT, SessionReason.SILENT, each.device) for each in silent]
        return [event for each in events for event in each]

    def outgoing(self, now: float) -> list[Outgoing]:
        """All that is to be published now."""
        control, self._control = self._control, []
        frames = [frame for end in self._sessions.values() for frame in end.frames(now)]
        return [*(Outgoing(data, True) for data in control), *(Outgoing(data, False) for data in frames)]

    @property
    def deadline(self) -> float:
        """When `pass_time` and `outgoing` have something to do, unless something comes before."""
        return min([self._offered_at + OFFER_SECONDS, *(each.deadline for each in self._sessions.values())])

    def _asked(self, introduction: Introduction, now: float) -> list[HelperEvent]:
        session = introduction.session
        if end := self._sessions.get(session):
            if end.grant and end.opening == digest(introduction.message):
                self._control.append(end.grant)
            return []
        if session in self._over:
            return []
        topic = self._party.topic_of(introduction)
        envelope = verified(introduction.message, SESSION_OPENING, introduction.public_key, topic)
        opening = decode_payload(envelope.payload, SessionOpening)
        if opening.session != session:
            raise ProtocolError(Reason.MALFORMED, f"{introduction.peer} has opened another session than is named")
        if len(self._sessions) >= MAX_HELPER_SESSIONS:
            detail = f"the helper has {len(self._sessions)} sessions"
            refusal = SessionRefusal(session, SessionReason.HELPER_BUSY, detail, BUSY_SECONDS)
            self._send(SESSION_REFUSAL, encode_payload(refusal))
            return []
        header = envelope.header
        wanted = Wanted(
            header.task,
            opening.bundle,
            opening.cut,
            header.base_version,
            header.generation,
            opening.samples,
            cluster=opening.cluster,
        )
        opened = digest(introduction.message)
        self._sessions[session] = HelperEnd(session, introduction.peer, wanted, opened, now)
        self._openings[session] = (Introduced(introduction.public_key, opening.ephemeral), opened)
        return [Asked(session, introduction.peer, wanted)]

    def _resume(self, session: bytes) -> None:
        if (end := self._sessions.get(session)) and end.grant:
            resumption = SessionResumption(session, "helper", end.device)
            self._send(SESSION_RESUMPTION, encode_payload(resumption))
        else:
            self._send_ending(session, SessionReason.UNKNOWN_SESSION, "the helper does not have this session")

    def _close(self, session: bytes, event: Event, reason: str, detail: str) -> list[HelperEvent]:
        if not (end := self._sessions.get(session)):
            return []
        closed = end.close(event, reason, detail)
        return self._swept(closed, told=event is Event.ENDED)

    def _swept(self, events: list[HelperEvent], *, told: bool = False) -> list[HelperEvent]:
        """Forget the sessions that are over, and tell the relay unless it has told us."""
        for event in events:
            if isinstance(event, Closed):
                del self._sessions[event.session]
                self._openings.pop(event.session, None)
                self._over[event.session] = None
                if not told:
                    self._send_ending(event.session, event.reason, event.detail)
        while len(self._over) > SESSIONS_REMEMBERED:
            self._over.popitem(last=False)
        return events

    def _send_offer(self, now: float) -> None:
        self._offered_at = now
        if self._offer is not None:
            self._send(HELPER_OFFER, encode_payload(self._offer))

    def _send_ending(self, session: bytes, reason: str, detail: str) -> None:
        self._send(SESSION_ENDING, encode_payload(SessionEnding(session, reason, detail)))

    def _send(self, kind: PayloadKind, payload: bytes) -> None:
        self._control.append(self._party.sign(kind, payload))
