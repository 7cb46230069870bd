"""When a round begins, is deferred, and ends: the training side of one agent. Pure.

A trigger that fired and was deferred is retried when something changes that may allow the round (a version, a receipt,
a connection), or after `recheck_seconds`. The caller keeps that timer.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from edge_agent.core.guards import GuardSettings, Readings, refusal
from edge_agent.core.lifecycle import Event, Lifecycle, State
from edge_agent.core.triggers import SampleTrigger


@dataclass(frozen=True, slots=True)
class StartingPoint:
    """What a round depends on, besides the residual: it draws its batches from a seed that counts rounds."""

    version: int
    bundle: str
    newest_sample: int
    generation: int = 0


class RoundDecisions:
    """One round at a time, over all tasks of an agent. `triggers` has one for each task, by its name."""

    __slots__ = ("_deferred", "_diverged", "_guards", "_lifecycle", "_triggers")

    def __init__(self, guards: GuardSettings, triggers: Mapping[str, SampleTrigger]) -> None:
        self._guards = guards
        self._triggers = triggers
        self._lifecycle = Lifecycle()
        self._deferred = False
        self._diverged: dict[str, StartingPoint] = {}

    @property
    def state(self) -> State:
        """What the training side is doing."""
        return self._lifecycle.state

    @property
    def deferred(self) -> bool:
        """Whether a trigger has fired and was deferred."""
        return self._deferred

    def new_samples(self, task: str) -> int:
        """Samples of a task that no round has seen."""
        return self._triggers[task].new_samples

    def missing_samples(self, task: str) -> int:
        """How many samples have to come until the task's trigger fires."""
        return self._triggers[task].missing_samples

    def is_due(self, task: str) -> bool:
        """Whether the task's trigger has fired."""
        return self.missing_samples(task) == 0

    def samples_arrived(self, task: str, count: int = 1) -> bool:
        """Count new samples; returns whether the agent wakes up for them. It doesn't while a trigger is deferred."""
        self._triggers[task].new_samples += count
        return self.is_due(task) and not self._deferred

    def manifest_changed(self, task: str, new_samples: int) -> None:
        """The task may have another bundle, to which all stored samples are new: `new_samples` are now."""
        self._triggers[task].new_samples = new_samples

    def retry_deferred_trigger(self) -> None:
        """Something changed that may allow a round, or `recheck_seconds` have passed."""
        self._deferred = False

    def begin(self, readings: Readings) -> str | None:
        """Wake up for a round. None: fetch the version; else why the round is deferred."""
        self._lifecycle.advance(Event.TRIGGER_FIRED)
        if refused := refusal(self._guards, readings):
            self._put_off(Event.GUARD_REFUSED)
            return refused
        self._lifecycle.advance(Event.GUARDS_AGREED)
        return None

    def version_unavailable(self) -> None:
        """There is no version to train on now: defer the round."""
        self._put_off(Event.VERSION_UNAVAILABLE)

    def version_ready(self, task: str, start: StartingPoint) -> str | None:
        """The version is fetched. None: train; else why the round is deferred."""
        if self._diverged.get(task) == start:
            self._put_off(Event.VERSION_UNAVAILABLE)
            return f"training from version {start.version} on these samples diverged; waits for a version or a sample"
        self._lifecycle.advance(Event.VERSION_READY)
        return None

    def failed(self) -> None:
        """The round failed; its trigger is deferred."""
        self._put_off(Event.ROUND_FAILED)

    def diverged(self, task: str, start: StartingPoint) -> None:
        """Training from `start` diverged, and would again: don't repeat it."""
        self._diverged[task] = start

    def spooled(self, task: str, new_samples: int) -> None:
        """The round is over. `new_samples` have arrived since it read its own."""
        self._lifecycle.advance(Event.ROUND_SPOOLED)
        self._triggers[task].new_samples = new_samples

    def _put_off(self, event: Event) -> None:
        self._lifecycle.advance(event)
        self._deferred = True
