"""The relay: bytes of the broker come in with the time, publications go out. Pure.

A frame is passed on only between the two ends of an open session, shown by its hop tag to be from the one that its
topic names, within the credit that its receiver has given.
"""

import math
from collections.abc import Sequence
from dataclasses import InitVar, dataclass, field

from fleet_protocol import topics
from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.keys import SigningKey
from fleet_protocol.kinds import Leaf, News, SessionNotice, SessionReason
from fleet_protocol.sessions.frames import Frame, is_frame, is_tagged, read_frame, tagged_anew
from fleet_protocol.sessions.secrecy import Direction, hop_key
from session_relay.relay.core.carried_session import CarriedSession
from session_relay.relay.core.control import ControlDesk, helper_gone
from session_relay.relay.core.counters import SENDERS, Counters
from session_relay.relay.core.directory import Directory
from session_relay.relay.core.fair_queues import FairQueues, WaitingFrame
from session_relay.relay.core.helpers import Helpers
from session_relay.relay.core.lifecycle import Event, State
from session_relay.relay.core.limits import GRANT_SECONDS, IDLE_SECONDS, RESUMING_SECONDS, RETRY_SECONDS, RelayLimits
from session_relay.relay.core.openings import Openings
from session_relay.relay.core.outbox import Outbox, Publication
from session_relay.relay.core.session_book import SessionBook, Why


@dataclass(slots=True)
class Relay:
    """Of one fleet; `shards` are all that it has, `key` is the coordinator's, `directory` who may use it."""

    key: SigningKey
    fleet: str
    shards: Sequence[str]
    directory: InitVar[Directory]
    limits: RelayLimits = field(default_factory=RelayLimits)
    counters: Counters = field(default_factory=Counters)
    queues: FairQueues = field(init=False)
    helpers: Helpers = field(default_factory=Helpers)
    book: SessionBook = field(init=False)
    looked_at: float = field(default=-math.inf, init=False)
    """When `pass_time` was called last."""
    _desk: ControlDesk = field(init=False)

    def __post_init__(self, directory: Directory) -> None:
        """Put the parts together."""
        self.queues = FairQueues(self.limits.backlog_bytes)
        outbox = Outbox(self.key, self.fleet, self.shards)
        self.book = SessionBook(directory, outbox, self.queues, self.helpers, self.counters)
        self._desk = ControlDesk(self.book, Openings(self.book, self.limits))

    def learn(self, directory: Directory, now: float) -> None:
        """Go by another directory: sessions whose ends, keys or task are not in it are over."""
        before, self.book.directory = self.book.directory, directory
        why = Why(SessionReason.NOT_APPROVED, "the coordinator does not allow it any more", RETRY_SECONDS)
        is_same = directory.devices is before.devices  # as it nearly always is: comparing thousands of keys takes time
        changed = {name for name, key in before.devices.items() if not is_same and directory.devices.get(name) != key}
        for session in self.book:
            if session.device in changed or session.task.task not in directory.tasks:
                self.book.step(session, Event.REVOKED, now, why)
        for name in (before.helpers - directory.helpers) | (changed & before.helpers):
            self._desk.lose_helper(name, why, now)

    def receive(self, topic: str, data: bytes, now: float) -> None:
        """Take in a message of the broker.

        Raises:
            ProtocolError: it is none of an approved device or helper; it has been counted, and nothing else happened.
        """
        try:
            name, shard = self._sender(topic)
            if topics.leaf_of(topic) == Leaf.STATE.value:
                if data:  # empty where a helper that has moved takes back what was retained
                    self._desk.note_presence(name, shard, data, now)
            elif is_frame(data):
                self._pass_on(name, shard, data, now)
            elif self._desk.may_ask(name, now):
                self._desk.receive(name, shard, data, now)
            else:
                self.counters.count_refusal(Reason.RATE_LIMITED)
        except ProtocolError as error:
            self.counters.count_refusal(error.reason)
            raise

    def pass_time(self, now: float) -> None:
        """End what has waited for too long."""
        self.looked_at = now
        for name in self.helpers.silent(now):
            self._desk.lose_helper(name, helper_gone(f"helper {name} gives no sign of life"), now)
        for session in self.book:
            waited = now - session.since
            if session.state is State.OFFERED and waited >= GRANT_SECONDS:
                why = helper_gone(f"helper {session.helper} does not answer")
                self._desk.openings.try_next(session, why, now)
            elif session.state is State.RESUMING and waited >= RESUMING_SECONDS:
                why = helper_gone(f"helper {session.helper} does not answer")
                self.book.step(session, Event.IDLE, now, why)
            elif session.state is State.OPEN and waited >= IDLE_SECONDS:
                why = Why(SessionReason.SILENT, f"nothing was sent in this session for {IDLE_SECONDS:.0f} s")
                self.book.step(session, Event.IDLE, now, why)

    @property
    def control_waits(self) -> bool:
        """Whether a signed message waits to be published."""
        return bool(self.book.outbox.waiting)

    def next_control(self) -> Publication:
        """The signed message that has waited longest, to be published at QoS 1."""
        return self.book.outbox.waiting.popleft()

    def next_frames(self, most: int) -> Sequence[WaitingFrame]:
        """The frames to be published next at QoS 0, of about so many bytes."""
        frames = self.queues.take(most)
        self.counters.frames_passed += len(frames)
        for frame in frames:
            self.counters.bytes_passed[SENDERS[frame.direction]] += len(frame.data)
        return frames

    def _sender(self, topic: str) -> tuple[str, str]:
        """The name of whoever may speak there, and the shard."""
        name, leaf = topics.device_of(topic)
        shard = topics.shard_in(topic)
        heard = topics.session(self.fleet, shard, name), topics.state(self.fleet, shard, name)
        if shard not in self.shards or topic not in heard:
            raise ProtocolError(Reason.WRONG_TOPIC, f"{topic!r} is not a topic of this relay ({leaf})")
        if name not in self.book.directory.devices:
            raise ProtocolError(Reason.UNKNOWN_KEY, f"{name} is no approved device")
        return name, shard

    def _pass_on(self, name: str, shard: str, data: bytes, now: float) -> None:
        frame = read_frame(data)
        session = self.book.get(frame.session)
        if session is None or session.state is not State.OPEN:
            self.counters.dropped["no_session"] += 1
            if session is None and frame.direction is Direction.FROM_DEVICE:
                self._say_unknown(name, shard, frame, data, now)
            return
        if session.end_of(frame.direction) != name or not is_tagged(data, session.hop_key(name, self._hop_key)):
            self.counters.dropped["not_its_session"] += 1
            raise ProtocolError(Reason.BAD_SIGNATURE, f"a frame from {name} for a session that is not its own")
        self.book.outbox.note_spoken(name, shard)
        session.since = now
        session.note_credit(frame)
        if not session.has_credit(frame):
            self.counters.dropped["no_credit"] += 1
            return
        self._queue(session, name, data)

    def _queue(self, session: CarriedSession, name: str, data: bytes) -> None:
        receiver = session.other_end(name)
        anew = tagged_anew(data, session.hop_key(receiver, self._hop_key))
        sent = Direction.FROM_DEVICE if name == session.device else Direction.FROM_HELPER
        waiting = WaitingFrame(session.name, self.book.outbox.topic(receiver), anew, sent)
        if self.queues.put(session.device, waiting) is not None:
            self.counters.dropped["backlog"] += 1

    def _say_unknown(self, name: str, shard: str, frame: Frame, data: bytes, now: float) -> None:
        """Tell a device that the relay has forgotten its session, in a restart say."""
        if self._desk.may_hear_unknown(name, now) and is_tagged(data, self._hop_key(name, frame.session)):
            self.book.outbox.note_spoken(name, shard)
            notice = SessionNotice(frame.session, News.UNKNOWN, SessionReason.UNKNOWN_SESSION)
            self.book.outbox.notify(name, notice)

    def _hop_key(self, name: str, session: bytes) -> bytes:
        return hop_key(self.key, self.book.directory.devices[name], session)
