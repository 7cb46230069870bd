"""The life of a session as its two ends see it, as one table. Pure."""

from enum import StrEnum


class State(StrEnum):
    """What a session is at one of its ends."""

    OPENING = "opening"
    OPEN = "open"
    RESUMING = "resuming"
    CLOSED = "closed"


class Event(StrEnum):
    """What changes it."""

    GRANTED = "granted"
    REFUSED = "refused"
    MOVED = "moved"
    ENDED = "ended"
    LEFT = "left"
    SILENT = "silent"
    """Nothing was heard for too long."""
    UNKNOWN = "unknown"
    """The relay has forgotten the session."""
    RECONNECTED = "reconnected"
    """To the broker: what the relay made of it meanwhile is not known."""
    RESUMED = "resumed"


TRANSITIONS = {
    (State.OPENING, Event.GRANTED): State.OPEN,
    (State.OPENING, Event.REFUSED): State.CLOSED,
    (State.OPENING, Event.MOVED): State.CLOSED,
    (State.OPENING, Event.ENDED): State.CLOSED,
    (State.OPENING, Event.SILENT): State.CLOSED,
    (State.OPENING, Event.LEFT): State.CLOSED,
    (State.OPEN, Event.UNKNOWN): State.RESUMING,
    (State.OPEN, Event.RECONNECTED): State.RESUMING,
    (State.OPEN, Event.MOVED): State.CLOSED,
    (State.OPEN, Event.ENDED): State.CLOSED,
    (State.OPEN, Event.SILENT): State.CLOSED,
    (State.OPEN, Event.LEFT): State.CLOSED,
    (State.RESUMING, Event.RESUMED): State.OPEN,
    (State.RESUMING, Event.REFUSED): State.CLOSED,
    (State.RESUMING, Event.MOVED): State.CLOSED,
    (State.RESUMING, Event.ENDED): State.CLOSED,
    (State.RESUMING, Event.SILENT): State.CLOSED,
    (State.RESUMING, Event.LEFT): State.CLOSED,
}
"""Any other event changes nothing: a message that was repeated, or has come too late."""


def after(state: State, event: Event) -> State:
    """The state that follows; the same one where the table has none."""
    return TRANSITIONS.get((state, event), state)
