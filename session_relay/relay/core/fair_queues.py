"""Frames that wait to be passed on, a queue for each device, drained in turn. Pure.

Deficit round robin (Shreedhar and Varghese, "Efficient Fair Queueing Using Deficit Round Robin", 1995): each device in
turn has `QUANTUM_BYTES` passed on, and keeps what is left of it for its next turn while its queue isn't empty. So a
device that floods waits behind itself.
"""

from collections import OrderedDict, deque
from dataclasses import dataclass, field

from fleet_protocol.sessions.secrecy import Direction
from session_relay.relay.core.limits import MAX_DEVICE_BACKLOG_BYTES, QUANTUM_BYTES


@dataclass(frozen=True, slots=True)
class WaitingFrame:
    """A frame of a session in one direction, for a topic."""

    session: bytes
    topic: str
    data: bytes
    direction: Direction


@dataclass(slots=True)
class _Queue:
    frames: deque[WaitingFrame] = field(default_factory=deque)
    size: int = 0
    deficit: int = 0


class FairQueues:
    """At most `MAX_DEVICE_BACKLOG_BYTES` wait of one device, `most_bytes` in all. What exceeds it is dropped:
    the newest frame of the device that has most waiting. Its ends send it again.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._queues: OrderedDict[str, _Queue] = OrderedDict()
        """In the order of their turns."""
        self.size = 0
        """Bytes that wait."""

    def __len__(self) -> int:
        """Devices of which something waits."""
        return len(self._queues)

    def put(self, device: str, frame: WaitingFrame) -> WaitingFrame | None:
        """Add a frame; returns the one that is dropped for it, if any."""
        queue = self._queues.get(device)
        if queue is not None and queue.size + len(frame.data) > MAX_DEVICE_BACKLOG_BYTES:
            return frame
        if queue is None:
            queue = self._queues[device] = _Queue()
        queue.frames.append(frame)
        queue.size += len(frame.data)
        self.size += len(frame.data)
        return self._drop_newest() if self.size > self._most_bytes else None

    def take(self, most: int) -> list[WaitingFrame]:
        """The next frames, of about so many bytes: the last one may exceed it."""
        taken: list[WaitingFrame] = []
        while self._queues and most > 0:
            device, queue = next(iter(self._queues.items()))
            if queue.deficit < len(queue.frames[0].data):
                queue.deficit += QUANTUM_BYTES
            while queue.frames and len(queue.frames[0].data) <= queue.deficit and most > 0:
                frame = queue.frames.popleft()
                size = len(frame.data)
                queue.deficit -= size
                queue.size -= size
                self.size -= size
                most -= size
                taken.append(frame)
            if not queue.frames:
                del self._queues[device]
            elif len(queue.frames[0].data) > queue.deficit:
                self._queues.move_to_end(device)
        return taken

    def forget(self, device: str, session: bytes) -> None:
        """Drop what waits of a session that is over."""
        if queue := self._queues.get(device):
            queue.frames = deque(frame for frame in queue.frames if frame.session != session)
            self.size -= queue.size
            queue.size = sum(len(frame.data) for frame in queue.frames)
            self.size += queue.size
            if not queue.frames:
                del self._queues[device]

    def _drop_newest(self) -> WaitingFrame:
        device, queue = max(self._queues.items(), key=lambda each: each[1].size)
        frame = queue.frames.pop()
        queue.size -= len(frame.data)
        self.size -= len(frame.data)
        if not queue.frames:
            del self._queues[device]
        return frame
