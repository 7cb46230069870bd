"""A session at its device: asks for a helper, sends requests until they are answered, and notices when it is over.

Pure: bytes and times come in, events and bytes to publish go out. After every call, publish what `outgoing` gives; at
`deadline`, call `pass_time`.
"""

from collections.abc import Callable, Collection
from typing import Final

from fleet_protocol.envelope import digest
from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.kinds import (
    SESSION_ENDING,
    SESSION_GRANT,
    SESSION_OPENING,
    SESSION_RESUMPTION,
    Introduction,
    News,
    SessionEnding,
    SessionGrant,
    SessionNotice,
    SessionOpening,
    SessionReason,
    SessionResumption,
    decode_payload,
    encode_payload,
)
from fleet_protocol.limits import SESSION_BYTES
from fleet_protocol.sessions.channel import Channel
from fleet_protocol.sessions.events import Answered, DeviceEvent, Ended, Granted, Moved, Outgoing, Refused, Wanted
from fleet_protocol.sessions.frames import is_frame, session_of
from fleet_protocol.sessions.lifecycle import Event, State, after
from fleet_protocol.sessions.party import Party, verified
from fleet_protocol.sessions.round_trip import RoundTrip
from fleet_protocol.sessions.secrecy import SECRET_BYTES, Direction, Introduced, ephemeral_of, session_keys
from fleet_protocol.sessions.waiting_requests import WaitingRequests

CONTROL_REPEAT_SECONDS: Final = 5.0
"""How often an opening or a resumption is sent again without an answer."""
CONTROL_PATIENCE_SECONDS: Final = 30.0
"""How long."""
SILENCE_SECONDS: Final = 90.0
"""Without anything from the other end, which answers every probe."""
ANSWER_SECONDS: Final = 90.0
"""Without the answer to a request, from a helper that gives signs of life all the same."""
RETRY_SECONDS: Final = 30
"""After which a device asks again that had no answer at all."""

_BY_NEWS: Final = {
    News.REFUSED: Event.REFUSED,
    News.MOVED: Event.MOVED,
    News.ENDED: Event.ENDED,
    News.UNKNOWN: Event.UNKNOWN,
    News.RESUMED: Event.RESUMED,
}


class DeviceEnd:
    """One session, from its opening to its end. `trusted` are the public keys of the helpers that the device's owner
    trusts (32 bytes each); empty: whichever the coordinator names. `randomness` gives so many random bytes. A helper
    that does not answer a request for `answer_seconds` is given up.
    """

    def __init__(
        self,
        party: Party,
        wanted: Wanted,
        randomness: Callable[[int], bytes],
        now: float,
        *,
        trusted: Collection[bytes] = (),
        answer_seconds: float = ANSWER_SECONDS,
    ) -> None:
        self.session = randomness(SESSION_BYTES)
        self.wanted = wanted
        self.helper = ""
        """Who has granted it, or wanted to."""
        self.round_trip = RoundTrip()
        """From a request to its answer, as measured."""
        self._party, self._trusted = party, trusted
        self._answer_seconds = answer_seconds
        self._secret = randomness(SECRET_BYTES)
        self._ephemeral = ephemeral_of(self._secret)
        self._opening = self._sign_opening()
        self._state = State.OPENING
        self._channel: Channel | None = None
        self._requests = WaitingRequests(self.round_trip)
        self._control: list[bytes] = [self._opening]
        self._control_since = self._control_at = now

    @property
    def state(self) -> State:
        """Of the session."""
        return self._state

    @property
    def has_room(self) -> bool:
        """Whether another request may be sent now."""
        return self._state in (State.OPEN, State.RESUMING) and self._requests.has_room

    def request(self, message: bytes) -> int:
        """Send a request; returns its number, from 1.

        Raises:
            ValueError: the session has no room for it, or the message is too long.
        """
        if self._channel is None or not self.has_room:
            raise ValueError(f"the session is {self._state} with {len(self._requests)} requests; it takes no other now")
        sealed = self._channel.seal(self._requests.next_number, message)
        self._requests.send(sealed, self._channel)
        return sealed.number

    def receive(self, data: bytes, now: float) -> list[DeviceEvent]:
        """Take in what the relay has sent; what is of another session gives nothing.

        Raises:
            ProtocolError: it is not from this session's relay or helper; nothing has changed.
        """
        if self._state is State.CLOSED:
            return []
        if is_frame(data):
            return self._receive_frame(data, now)
        match self._party.verify(data):
            case Introduction(session=self.session) as introduction if self._state is State.OPENING:
                return self._meet(introduction, now)
            case SessionNotice(session=self.session) as notice:
                return self._note(notice, now)
        return []

    def reconnected(self, now: float) -> None:
        """Note that the connection to the broker was lost and is there again."""
        if self._state is State.OPENING:
            self._control.append(self._opening)
        elif self._state is State.RESUMING:
            self._ask_to_resume()
        self._become(Event.RECONNECTED, now)

    def leave(self, reason: str = SessionReason.LEFT, detail: str = "") -> None:
        """End the session."""
        if self._state is not State.CLOSED:
            self._state = after(self._state, Event.LEFT)
            ending = SessionEnding(self.session, reason, detail)
            self._control.append(self._party.sign(SESSION_ENDING, encode_payload(ending)))

    def pass_time(self, now: float) -> list[DeviceEvent]:
        """Repeat what has no answer, and give up what has had none for too long."""
        match self._state:
            case State.OPENING | State.RESUMING:
                return self._await_relay(now)
            case State.OPEN if self._channel is not None:
                return self._await_helper(self._channel, now)
        return []

    def outgoing(self, now: float) -> list[Outgoing]:
        """All that is to be published now."""
        control, self._control = self._control, []
        frames = list(self._channel.frames(now)) if self._channel and self._state is State.OPEN else []
        if self._channel:
            self._requests.note_sent(self._channel, now)
        return [*(Outgoing(data, True) for data in control), *(Outgoing(data, False) for data in frames)]

    @property
    def deadline(self) -> float | None:
        """When `pass_time` and `outgoing` have something to do, unless something comes before; None: never."""
        if self._state is State.CLOSED:
            return None
        if self._channel is None or self._state is not State.OPEN:
            return min(self._control_at + CONTROL_REPEAT_SECONDS, self._control_since + CONTROL_PATIENCE_SECONDS)
        answer_by = self._requests.since + self._answer_seconds
        silent_at = self._channel.heard_at + SILENCE_SECONDS
        return min(silent_at, answer_by, self._channel.deadline, self._requests.repeat_at)

    def _sign_opening(self) -> bytes:
        wanted = self.wanted
        opening = SessionOpening(
            self.session,
            self._ephemeral,
            wanted.bundle,
            wanted.cut,
            wanted.samples,
            wanted.without,
            wanted.cluster,
        )
        return self._party.sign(
            SESSION_OPENING,
            encode_payload(opening),
            task=wanted.task,
            base_version=wanted.base_version,
            generation=wanted.generation,
        )

    def _receive_frame(self, data: bytes, now: float) -> list[DeviceEvent]:
        if self._channel is None or session_of(data) != self.session:
            return []
        frame = self._channel.receive(data, now)
        message = self._channel.completed_by(frame) if frame.number in self._requests else None
        if message is None:
            return []
        self._requests.answered(frame.number, self._channel, now)
        return [Answered(frame.number, message)]

    def _meet(self, introduction: Introduction, now: float) -> list[DeviceEvent]:
        if self._trusted and introduction.public_key not in self._trusted:
            detail = f"helper {introduction.peer} has key {introduction.public_key.hex()}, not one of trusted_helpers"
            self.helper = introduction.peer
            self.leave(SessionReason.UNTRUSTED_HELPER, detail)
            return [Refused(SessionReason.UNTRUSTED_HELPER, detail, RETRY_SECONDS)]
        keys = self._agree(introduction)
        hop_key = self._party.hop_key(self.session)
        self._channel = Channel(self.session, Direction.FROM_DEVICE, keys, hop_key, now)
        self.helper = introduction.peer
        self._become(Event.GRANTED, now)
        return [Granted(self.helper)]

    def _agree(self, introduction: Introduction) -> tuple[bytes, bytes]:
        topic = self._party.topic_of(introduction)
        envelope = verified(introduction.message, SESSION_GRANT, introduction.public_key, topic)
        grant = decode_payload(envelope.payload, SessionGrant)
        if (grant.session, grant.opening) != (self.session, digest(self._opening)):
            raise ProtocolError(Reason.MALFORMED, f"{introduction.peer} has granted another session than this one")
        device = Introduced(bytes(self._party.key.verify_key), self._ephemeral)
        helper = Introduced(introduction.public_key, grant.ephemeral)
        return session_keys(self.session, self._secret, grant.ephemeral, device, helper)

    def _note(self, notice: SessionNotice, now: float) -> list[DeviceEvent]:
        before = self._state
        if (event := _BY_NEWS.get(notice.news)) is None:
            return []
        self._become(event, now)
        if self._state is not State.CLOSED:
            return []
        match event:
            case Event.REFUSED:
                return [Refused(notice.reason, notice.detail, notice.retry_seconds)]
            case Event.MOVED if before is not State.OPENING:
                return [Moved(notice.reason, notice.detail)]
            case Event.MOVED:
                return [Refused(notice.reason, notice.detail, notice.retry_seconds)]
        return [Ended(notice.reason, notice.detail)]

    def _become(self, event: Event, now: float) -> None:
        before, self._state = self._state, after(self._state, event)
        if self._state is before:
            return
        if self._state is State.RESUMING:
            self._control_since = self._control_at = now
            self._ask_to_resume()
        if self._state is State.OPEN and self._channel is not None:
            self._channel.heard_at = now
            self._requests.repeat_all(self._channel)

    def _ask_to_resume(self) -> None:
        resumption = SessionResumption(self.session, "device", self.helper)
        self._control.append(self._party.sign(SESSION_RESUMPTION, encode_payload(resumption), task=self.wanted.task))

    def _await_relay(self, now: float) -> list[DeviceEvent]:
        if now >= self._control_since + CONTROL_PATIENCE_SECONDS:
            detail = f"no answer from the relay for {CONTROL_PATIENCE_SECONDS:.0f} s"
            was_opening = self._state is State.OPENING
            self.leave(SessionReason.SILENT, detail)
            lost = Ended(SessionReason.SILENT, detail)
            return [Refused(SessionReason.SILENT, detail, RETRY_SECONDS) if was_opening else lost]
        if now >= self._control_at + CONTROL_REPEAT_SECONDS:
            self._control_at = now
            if self._state is State.OPENING:
                self._control.append(self._opening)
            else:
                self._ask_to_resume()
        return []

    def _await_helper(self, channel: Channel, now: float) -> list[DeviceEvent]:
        if now >= channel.heard_at + SILENCE_SECONDS:
            detail = f"nothing from helper {self.helper} for {SILENCE_SECONDS:.0f} s"
            return self._give_up(SessionReason.UNANSWERED, detail)
        if now >= self._requests.since + self._answer_seconds:
            detail = f"no answer from helper {self.helper} for {self._answer_seconds:g} s"
            return self._give_up(SessionReason.UNANSWERED, detail)
        self._requests.repeat_overdue(channel, now)
        return []

    def _give_up(self, reason: SessionReason, detail: str) -> list[DeviceEvent]:
        self.leave(reason, detail)
        return [Ended(reason, detail)]
