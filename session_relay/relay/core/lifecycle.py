"""The life of a session as the relay sees it, as one table: what follows, and what the two ends are told. Pure."""

from dataclasses import dataclass
from enum import StrEnum

from fleet_protocol.kinds import News


class State(StrEnum):
    """What a session is to the relay."""

    OFFERED = "offered"
    """To a helper, which has not granted it yet."""
    OPEN = "open"
    RESUMING = "resuming"
    """The relay had forgotten it; one end has named it, the other is asked."""
    OVER = "over"


class Event(StrEnum):
    """What changes it."""

    DECLINED = "declined"
    """By a helper, and another one is asked."""
    GRANTED = "granted"
    REFUSED = "refused"
    RESUMED = "resumed"
    """By both ends, or by the device of an open one."""
    DEVICE_LEFT = "device left"
    HELPER_LEFT = "helper left"
    HELPER_GONE = "helper gone"
    REPLACED = "replaced"
    """The device has opened another for the same task."""
    REVOKED = "revoked"
    """One of its ends, or its task, is not allowed any more."""
    IDLE = "idle"


@dataclass(frozen=True, slots=True)
class Step:
    """The state that follows, and the news for each end; None: it knows."""

    state: State
    device: News | None = None
    helper: News | None = None


TRANSITIONS = {
    (State.OFFERED, Event.DECLINED): Step(State.OFFERED),
    (State.OFFERED, Event.GRANTED): Step(State.OPEN),
    (State.OFFERED, Event.REFUSED): Step(State.OVER, device=News.REFUSED),
    (State.OFFERED, Event.DEVICE_LEFT): Step(State.OVER, helper=News.ENDED),
    (State.OFFERED, Event.REPLACED): Step(State.OVER, helper=News.ENDED),
    (State.OFFERED, Event.REVOKED): Step(State.OVER, device=News.REFUSED, helper=News.ENDED),
    (State.OPEN, Event.RESUMED): Step(State.OPEN, device=News.RESUMED),
    (State.OPEN, Event.DEVICE_LEFT): Step(State.OVER, helper=News.ENDED),
    (State.OPEN, Event.HELPER_LEFT): Step(State.OVER, device=News.MOVED),
    (State.OPEN, Event.HELPER_GONE): Step(State.OVER, device=News.MOVED, helper=News.ENDED),
    (State.OPEN, Event.REPLACED): Step(State.OVER, device=News.ENDED, helper=News.ENDED),
    (State.OPEN, Event.REVOKED): Step(State.OVER, device=News.ENDED, helper=News.ENDED),
    (State.OPEN, Event.IDLE): Step(State.OVER, device=News.ENDED, helper=News.ENDED),
    (State.RESUMING, Event.RESUMED): Step(State.OPEN, device=News.RESUMED),
    (State.RESUMING, Event.DEVICE_LEFT): Step(State.OVER, helper=News.ENDED),
    (State.RESUMING, Event.HELPER_LEFT): Step(State.OVER, device=News.MOVED),
    (State.RESUMING, Event.HELPER_GONE): Step(State.OVER, device=News.MOVED),
    (State.RESUMING, Event.REPLACED): Step(State.OVER, device=News.ENDED, helper=News.ENDED),
    (State.RESUMING, Event.REVOKED): Step(State.OVER, device=News.ENDED, helper=News.ENDED),
    (State.RESUMING, Event.IDLE): Step(State.OVER, device=News.MOVED, helper=News.ENDED),
}
"""Any other event changes nothing: a message that was repeated, or has come too late."""
