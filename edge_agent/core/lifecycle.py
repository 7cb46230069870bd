"""The life cycle of one task on a device, as one table. Pure.

Sending is no state: the outbox empties whenever there is a link.
"""

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """What a device does for a task."""

    SLEEPING = "sleeping"
    DECIDING = "deciding"
    FETCHING = "fetching"
    TRAINING = "training"
    PAUSED = "paused"
    UNENROLLED = "unenrolled"
    UNREADABLE = "unreadable"
    ENDED = "ended"


class Event(StrEnum):
    """What changes the state."""

    TRIGGER_FIRED = "trigger fired"
    GUARDS_AGREED = "guards agreed"
    GUARD_REFUSED = "guard refused"
    VERSION_READY = "version ready"
    VERSION_UNAVAILABLE = "version unavailable"
    ROUND_ENDED = "round ended"
    ROUND_FAILED = "round failed"
    TASK_PAUSED = "task paused"
    TASK_RESUMED = "task resumed"
    NOT_ENROLLED = "not enrolled"
    ENROLLED = "enrolled"
    NOT_READABLE = "not readable"
    READABLE = "readable"
    TASK_ENDED = "task ended"
    TASK_RENEWED = "task renewed"


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
    (State.TRAINING, Event.GUARD_REFUSED): State.SLEEPING,
    (State.SLEEPING, Event.TASK_PAUSED): State.PAUSED,
    (State.PAUSED, Event.TASK_RESUMED): State.SLEEPING,
    (State.SLEEPING, Event.NOT_ENROLLED): State.UNENROLLED,
    (State.UNENROLLED, Event.ENROLLED): State.SLEEPING,
    (State.SLEEPING, Event.NOT_READABLE): State.UNREADABLE,
    (State.UNREADABLE, Event.READABLE): State.SLEEPING,
    (State.SLEEPING, Event.TASK_ENDED): State.ENDED,
    (State.ENDED, Event.TASK_RENEWED): State.SLEEPING,
}


@dataclass(frozen=True, slots=True)
class Hindrance:
    """What keeps a task from every round while it lasts, and the events with which it begins and is over."""

    begins: Event
    is_over: Event


HINDRANCES = {
    State.ENDED: Hindrance(Event.TASK_ENDED, Event.TASK_RENEWED),
    State.UNENROLLED: Hindrance(Event.NOT_ENROLLED, Event.ENROLLED),
    State.UNREADABLE: Hindrance(Event.NOT_READABLE, Event.READABLE),
    State.PAUSED: Hindrance(Event.TASK_PAUSED, Event.TASK_RESUMED),
}
"""By the state that each leads to. Where there are several, the first is shown."""

IN_A_ROUND = frozenset({State.DECIDING, State.FETCHING, State.TRAINING})


class LifecycleError(Exception):
    """An event that the state has no transition for: a defect of the agent, not of its input."""


class Lifecycle:
    """The state of a task, and why it is in it; only `advance`, `hinder` and `lift` change it."""

    __slots__ = ("_hindrances", "reason", "state")

    def __init__(self) -> None:
        self.state = State.SLEEPING
        self.reason = "the agent has started"
        """The last event, and what there is to say of it."""
        self._hindrances: dict[State, str] = {}

    @property
    def is_free(self) -> bool:
        """Whether a round may begin, and nothing hinders the next ones."""
        return self.state is State.SLEEPING and not self._hindrances

    def advance(self, event: Event, detail: str = "") -> None:
        """Make the transition of `event`. A hindrance that came in a round takes effect at its end.

        Raises:
            LifecycleError: the table has no such transition.
        """
        try:
            self.state = TRANSITIONS[self.state, event]
        except KeyError:
            raise LifecycleError(f"{event.value!r} while {self.state.value}") from None
        self.reason = f"{event.value}: {detail}" if detail else event.value
        if self._hindrances and self.state is State.SLEEPING:
            self._take_effect()

    def hinder(self, state: State, detail: str) -> None:
        """From now on, or from the end of the round on, nothing is trained: one of `HINDRANCES`, and its `detail`."""
        self._hindrances[state] = detail
        if self.state is state:
            self.reason = f"{HINDRANCES[state].begins.value}: {detail}"
        self._take_effect()

    def lift(self, state: State) -> None:
        """That hindrance is over, if there was one."""
        if self._hindrances.pop(state, None) is not None:
            self._take_effect()

    def _take_effect(self) -> None:
        wanted = next((state for state in HINDRANCES if state in self._hindrances), State.SLEEPING)
        if self.state in IN_A_ROUND or wanted is self.state:
            return
        if self.state in HINDRANCES:
            self.advance(HINDRANCES[self.state].is_over)  # asleep, it goes on to the next one
        else:
            self.advance(HINDRANCES[wanted].begins, self._hindrances[wanted])
