"""A session's encrypted messages in both directions at one of its ends: chunks, credit, signs of life. Pure."""

from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.sessions.flow import ReceivingCredit, SendingCredit
from fleet_protocol.sessions.frames import Assembly, Frame, FrameType, chunks_of, is_tagged, read_frame, write_frame
from fleet_protocol.sessions.secrecy import Direction, seal, unseal

PROBE_SECONDS: Final = 1.0
"""How often an end asks for credit that it waits for."""
KEEP_ALIVE_SECONDS: Final = 20.0
"""How often it asks for a sign of life while it has nothing to send."""


@dataclass(frozen=True, slots=True)
class Sealed:
    """A message, encrypted once: its chunks are the same bytes however often they are sent."""

    number: int
    chunks: Sequence[bytes]

    @property
    def size(self) -> int:
        """In bytes."""
        return sum(map(len, self.chunks))


class Channel:
    """What is sent in `direction` and received in the opposite one. `keys` are both directions', by `Direction`."""

    def __init__(
        self, session: bytes, direction: Direction, keys: tuple[bytes, bytes], hop_key: bytes, now: float
    ) -> None:
        self.session = session
        self.heard_at = now
        """When something of the other end came last."""
        self.settled = 0
        """What the device says that it needs no answer to any more, and up to there."""
        self._direction = direction
        self._own_key, self._other_key = keys[direction], keys[direction.opposite]
        self._hop_key = hop_key
        self._queue: deque[tuple[Sealed, int]] = deque()
        self._waiting: Counter[int] = Counter()
        """Chunks in the queue, by message."""
        self._sending, self._receiving = SendingCredit(), ReceivingCredit()
        self._assembly = Assembly(self._unseal)
        self._sent_at = now
        self._owes_credit = False

    def seal(self, number: int, content: bytes) -> Sealed:
        """Encrypt a message; each number once.

        Raises:
            ValueError: it is too long.
        """
        chunks = chunks_of(content)
        count = len(chunks)
        sealed = [seal(self._own_key, number, index, count, chunk) for index, chunk in enumerate(chunks)]
        return Sealed(number, sealed)

    def send(self, message: Sealed) -> None:
        """Have it sent as soon as there is credit, unless it waits for that already."""
        if not self.holds(message.number):
            self._queue.extend((message, index) for index in range(len(message.chunks)))
            self._waiting[message.number] = len(message.chunks)

    def holds(self, number: int) -> bool:
        """Whether some of a message waits to be sent."""
        return self._waiting[number] > 0

    def forget(self, number: int) -> None:
        """Don't send what waits of a message."""
        if self._waiting.pop(number, 0):
            self._queue = deque(each for each in self._queue if each[0].number != number)

    def receive(self, data: bytes, now: float) -> Frame:
        """A frame from the other end.

        Raises:
            ProtocolError: not a frame of this session's other end that the relay has passed on.
        """
        frame = read_frame(data)
        if frame.session != self.session or frame.direction is self._direction or not is_tagged(data, self._hop_key):
            raise ProtocolError(Reason.BAD_SIGNATURE, "the frame is not of this session, or not from the relay")
        self.heard_at = now
        if frame.type is FrameType.CREDIT:
            self._sending.told(frame.offset)
            return frame
        self._receiving.note(frame.end)
        if frame.type is FrameType.PROBE:
            self._owes_credit = True
        return frame

    def completed_by(self, frame: Frame) -> bytes | None:
        """The message that a received frame is the last missing chunk of.

        Raises:
            ProtocolError: the chunk was not sealed by the other end, or not as a part of that message.
        """
        return self._assembly.take(frame) if frame.type is FrameType.CONTENT else None

    def drop_through(self, number: int) -> None:
        """Forget what has come in part of messages up to this one."""
        self._assembly.drop_through(number)

    def frames(self, now: float) -> Iterator[bytes]:
        """All that may be sent now; message chunks in their order."""
        if self._owes_credit or self._receiving.is_due:
            self._owes_credit = False
            yield self._control(FrameType.CREDIT, self._receiving.tell())
        while self._queue and self._sending.covers(len(self._queue[0][0].chunks[self._queue[0][1]])):
            message, index = self._queue.popleft()
            self._waiting -= Counter((message.number,))
            self._sent_at = now
            yield self._content(message, index)
        if now >= self.deadline:
            self._sent_at = now
            yield self._control(FrameType.PROBE, self._sending.sent)

    @property
    def deadline(self) -> float:
        """When the next probe is due."""
        return self._sent_at + (PROBE_SECONDS if self._queue else KEEP_ALIVE_SECONDS)

    def _content(self, message: Sealed, index: int) -> bytes:
        body = message.chunks[index]
        offset = self._sending.spend(len(body))
        count = len(message.chunks)
        frame = Frame(
            FrameType.CONTENT, self.session, self._direction, offset, self.settled, message.number, index, count, body
        )
        return write_frame(frame, self._hop_key)

    def _control(self, kind: FrameType, offset: int) -> bytes:
        return write_frame(Frame(kind, self.session, self._direction, offset, self.settled), self._hop_key)

    def _unseal(self, frame: Frame) -> bytes:
        return unseal(self._other_key, frame.number, frame.index, frame.count, frame.body)
