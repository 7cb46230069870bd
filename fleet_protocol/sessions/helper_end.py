"""One session at its helper: each request is handed up once, its answer kept until the device has it. Pure."""

from typing import Final

from fleet_protocol.kinds import SessionReason
from fleet_protocol.limits import MAX_REQUESTS_IN_FLIGHT, MAX_SESSION_MESSAGE_BYTES
from fleet_protocol.sessions.channel import Channel, Sealed
from fleet_protocol.sessions.events import Closed, HelperEvent, Requested, Wanted
from fleet_protocol.sessions.frames import FrameType
from fleet_protocol.sessions.lifecycle import Event, State, after

MAX_UNANSWERED_BYTES: Final = 4 * MAX_SESSION_MESSAGE_BYTES
"""Of one session's requests that were handed up: more are not taken in until some are answered."""
MAX_KEPT_BYTES: Final = 4 * MAX_SESSION_MESSAGE_BYTES
"""Of its answers that the device may ask for again."""
SILENCE_SECONDS: Final = 120.0
"""Without anything from the device: longer than the device itself waits."""


class HelperEnd:
    """A session from a device's question for it to its end. `opening` is the digest of the device's envelope."""

    def __init__(self, session: bytes, device: str, wanted: Wanted, opening: bytes, now: float) -> None:
        self.session, self.device, self.wanted, self.opening = session, device, wanted, opening
        self.grant = b""
        """The signed message that has granted it."""
        self.state = State.OPENING
        self._asked_at = now
        self._channel: Channel | None = None
        self._settled = 0
        self._unanswered: dict[int, int] = {}
        """Requests that were handed up, with their bytes."""
        self._kept: dict[int, Sealed] = {}
        self._lost: set[int] = set()
        """Answered requests whose answers are not kept."""

    def open(self, channel: Channel, grant: bytes) -> None:
        """Note that it was granted."""
        self.state = after(self.state, Event.GRANTED)
        self._channel, self.grant = channel, grant

    def close(self, event: Event, reason: str, detail: str) -> list[HelperEvent]:
        """End it; gives nothing where it has ended before."""
        before, self.state = self.state, after(self.state, event)
        return [] if before is self.state else [Closed(self.session, reason, detail)]

    def receive(self, data: bytes, now: float) -> list[HelperEvent]:
        """Take in a frame.

        Raises:
            ProtocolError: it is not from this session's device and the relay.
        """
        if self._channel is None or self.state is not State.OPEN:
            return []
        frame = self._channel.receive(data, now)
        self._settle(frame.settled)  # first: the device counts with the room that this makes
        message = self._channel.completed_by(frame) if self._takes(frame.number) else None
        if message is not None:
            self._unanswered[frame.number] = len(message)
            return [Requested(self.session, frame.number, message)]
        is_repeated = frame.type is FrameType.CONTENT and frame.index == frame.count - 1
        if is_repeated and frame.number in self._kept:
            self._channel.send(self._kept[frame.number])
        if is_repeated and frame.number in self._lost:
            detail = f"request {frame.number} is repeated, and its answer is no longer kept"
            return self.close(Event.LEFT, SessionReason.ANSWER_LOST, detail)
        return []

    def answer(self, number: int, message: bytes) -> None:
        """Send the answer to a request that was handed up; a session that is over drops it.

        Raises:
            ValueError: no such request waits for an answer, or the message is too long.
        """
        if self._channel is None or self.state is not State.OPEN:
            return
        if number not in self._unanswered:
            raise ValueError(f"request {number} of device {self.device} waits for no answer")
        sealed = self._channel.seal(number, message)
        del self._unanswered[number]
        if number <= self._settled:
            return
        self._kept[number] = sealed
        self._channel.send(sealed)
        while sum(each.size for each in self._kept.values()) > MAX_KEPT_BYTES:
            oldest = min(self._kept)
            del self._kept[oldest]
            self._lost.add(oldest)

    def frames(self, now: float) -> list[bytes]:
        """All that may be sent now."""
        return list(self._channel.frames(now)) if self._channel and self.state is State.OPEN else []

    def is_silent(self, now: float) -> bool:
        """Whether the device has not been heard for too long."""
        return now >= self._heard_at + SILENCE_SECONDS

    @property
    def deadline(self) -> float:
        """When it has something to do."""
        silent_at = self._heard_at + SILENCE_SECONDS
        return min(silent_at, self._channel.deadline) if self._channel else silent_at

    @property
    def _heard_at(self) -> float:
        return self._channel.heard_at if self._channel else self._asked_at

    def _takes(self, number: int) -> bool:
        """Whether a request of this number would be a new one, for which there is room."""
        is_new = number not in self._unanswered and number not in self._kept and number not in self._lost
        in_window = self._settled < number <= self._settled + MAX_REQUESTS_IN_FLIGHT
        return is_new and in_window and sum(self._unanswered.values()) < MAX_UNANSWERED_BYTES

    def _settle(self, settled: int) -> None:
        if settled <= self._settled or self._channel is None:
            return
        self._settled = settled
        for number in [number for number in self._kept if number <= settled]:
            del self._kept[number]
            self._channel.forget(number)
        self._lost = {number for number in self._lost if number > settled}
        self._channel.drop_through(settled)
