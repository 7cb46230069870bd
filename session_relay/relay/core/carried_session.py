"""One session that the relay carries. Pure."""

from collections.abc import Callable
from dataclasses import dataclass, field

from fleet_protocol.kinds import OfferedTask
from fleet_protocol.limits import SESSION_CREDIT_BYTES
from fleet_protocol.sessions.frames import Frame, FrameType
from fleet_protocol.sessions.secrecy import Direction
from session_relay.relay.core.lifecycle import State


@dataclass(slots=True)
class CarriedSession:
    """Between `device` and `helper`, for a task. `opening` is the device's envelope, empty where the session was
    resumed, and `grant` the helper's, each signed under the shard that is named beside it; `asked` are all helpers that
    were asked for it, and those that the device does without.
    """

    name: bytes
    device: str
    helper: str
    task: OfferedTask
    opening: bytes
    since: float
    """When it came into its state, or a frame of it was last passed on."""
    state: State = State.OFFERED
    asked: list[str] = field(default_factory=list)
    grant: bytes = b""
    opening_shard: str = ""
    grant_shard: str = ""
    hop_keys: dict[str, bytes] = field(default_factory=dict)
    """Of the two ends, by their name, once a frame has come."""
    limits: list[int | None] = field(default_factory=lambda: [SESSION_CREDIT_BYTES, SESSION_CREDIT_BYTES])
    """Up to which offset each direction may send, as its receiver has said; None until a resumed one says it again."""

    def end_of(self, direction: Direction) -> str:
        """The name of who sends in this direction."""
        return self.device if direction is Direction.FROM_DEVICE else self.helper

    def other_end(self, name: str) -> str:
        """The end that is not this one."""
        return self.helper if name == self.device else self.device

    def hop_key(self, name: str, make: Callable[[str, bytes], bytes]) -> bytes:
        """The key that frames of this end are tagged with; made once, by name and session."""
        key = self.hop_keys.get(name)
        if key is None:
            key = self.hop_keys[name] = make(name, self.name)
        return key

    def has_credit(self, frame: Frame) -> bool:
        """Whether the frame's receiver has said that it takes it; only content takes credit."""
        limit = self.limits[frame.direction]
        return frame.type is not FrameType.CONTENT or limit is None or frame.end <= limit

    def note_credit(self, frame: Frame) -> None:
        """Note the credit that a frame gives to the other direction."""
        if frame.type is FrameType.CREDIT:
            other = frame.direction.opposite
            self.limits[other] = max(self.limits[other] or 0, frame.offset)
