"""The life cycle of the training side of an agent, as one table. Pure.

Sending is no state: the outbox empties whenever there is a link.
"""

from enum import StrEnum


class State(StrEnum):
    """What the training side of an agent is doing."""

    SLEEPING = "sleeping"
    DECIDING = "deciding"
    FETCHING = "fetching"
    TRAINING = "training"


class Event(StrEnum):
    """What changes the state."""

    TRIGGER_FIRED = "trigger fired"
    GUARDS_AGREED = "guards agreed"
    GUARD_REFUSED = "guard refused"
    VERSION_READY = "version ready"
    VERSION_UNAVAILABLE = "version unavailable"
    ROUND_ENDED = "round ended"
    ROUND_FAILED = "round failed"


TRANSITIONS = {
    (State.SLEEPING, Event.TRIGGER_FIRED): State.DECIDING,
    (State.DECIDING, Event.GUARDS_AGREED): State.FETCHING,
    (State.DECIDING, Event.GUARD_REFUSED): State.SLEEPING,
    (State.FETCHING, Event.VERSION_READY): State.TRAINING,
    (State.FETCHING, Event.VERSION_UNAVAILABLE): State.SLEEPING,
    (State.FETCHING, Event.GUARD_REFUSED): State.SLEEPING,
    (State.FETCHING, Event.ROUND_FAILED): State.SLEEPING,
    (State.TRAINING, Event.ROUND_ENDED): State.SLEEPING,
    (State.TRAINING, Event.ROUND_FAILED): State.SLEEPING,
}


class LifecycleError(Exception):
    """An event that the state has no transition for: a defect of the agent, not of its input."""


class Lifecycle:
    """The state of one agent; `advance` is the only way to change it."""

    def __init__(self) -> None:
        self.state = State.SLEEPING

    def advance(self, event: Event) -> None:
        """Make the transition of `event`.

        Raises:
            LifecycleError: the table has no such transition.
        """
        try:
            self.state = TRANSITIONS[self.state, event]
        except KeyError:
            raise LifecycleError(f"{event.value!r} while {self.state.value}") from None
