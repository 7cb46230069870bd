"""When a round begins, is deferred, and ends: the training side of one agent. Pure.

A trigger that fired and was deferred is retried when something changes that may allow the round (a version, a receipt,
a connection), or after `recheck_seconds`. The caller keeps that timer, for each task its own. A version whose rounds
fail, or whose updates are refused, is trained from after growing waits, or not at all until a newer one comes.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from edge_agent.core.delivery import TOO_LARGE
from edge_agent.core.growing_waits import GrowingWaits
from edge_agent.core.guards import GuardSettings, Readings, refusal
from edge_agent.core.lifecycle import Event, Lifecycle, State
from edge_agent.core.outbox import OutboxRow
from edge_agent.core.triggers import SampleTrigger
from edge_agent.core.version_choice import KnownVersion
from fleet_protocol.errors import Reason
from fleet_protocol.kinds import Outcome, Receipt

OUTDATED_REASONS = frozenset({Reason.TOO_STALE, Reason.UNKNOWN_VERSION, Reason.UNKNOWN_TASK})
"""Every update from the same version would be refused alike."""


@dataclass(frozen=True, slots=True)
class StartingPoint:
    """What a round depends on, besides the residual: it draws its batches from a seed that counts rounds."""

    version: int
    bundle: str
    newest_sample: int
    generation: int = 0


@dataclass(frozen=True, slots=True)
class AfterReceipt:
    """When the newest version is trained from again after the receipt of an update from it.

    `is_outdated`: never, until a newer one is known. `wait_seconds`: what the update held was too large; None for none.
    """

    is_outdated: bool = False
    wait_seconds: float | None = None


class RoundDecisions:
    """One round at a time, over all tasks of an agent. `triggers` has one for each task, by its name."""

    __slots__ = ("_deferred", "_diverged", "_failures", "_guards", "_lifecycle", "_outdated", "_refusals", "_triggers")

    def __init__(self, guards: GuardSettings, triggers: Mapping[str, SampleTrigger]) -> None:
        self._guards = guards
        self._triggers = triggers
        self._lifecycle = Lifecycle()
        self._deferred: set[str] = set()
        self._diverged: dict[str, StartingPoint] = {}
        self._outdated: dict[str, KnownVersion] = {}
        self._failures = GrowingWaits()
        self._refusals = GrowingWaits()

    @property
    def state(self) -> State:
        """What the training side is doing."""
        return self._lifecycle.state

    def is_deferred(self, task: str) -> bool:
        """Whether the task's trigger has fired and was deferred."""
        return task in self._deferred

    def new_samples(self, task: str) -> int:
        """Samples of a task that no round has seen."""
        return self._triggers[task].new_samples

    def missing_samples(self, task: str) -> int:
        """How many samples have to come until the task's trigger fires."""
        return self._triggers[task].missing_samples

    def has_fired(self, task: str) -> bool:
        """Whether the task's trigger has fired and is not deferred."""
        return self.missing_samples(task) == 0 and task not in self._deferred

    def is_held(self, task: str, newest: KnownVersion | None, now: float) -> bool:
        """Whether nothing is trained now from `newest`, the newest version that a manifest has named: rounds from it
        failed, or updates from it were refused.
        """
        waits = self._failures.holds(task, newest, now) or self._refusals.holds(task, newest, now)
        return waits or (newest is not None and self._outdated.get(task) == newest)

    def is_due(self, task: str, newest: KnownVersion | None, now: float) -> bool:
        """Whether a round of the task begins now."""
        return self.has_fired(task) and not self.is_held(task, newest, now)

    def samples_arrived(self, task: str, count: int = 1) -> bool:
        """Count new samples; returns whether the agent wakes up for them. It doesn't while the trigger is deferred."""
        self._triggers[task].new_samples += count
        return self.has_fired(task)

    def manifest_changed(self, task: str, new_samples: int) -> None:
        """The task may have another bundle, to which all stored samples are new: `new_samples` are now."""
        self._triggers[task].new_samples = new_samples

    def retry_deferred_trigger(self, task: str) -> None:
        """Something changed that may allow a round of the task, or its wait is over."""
        self._deferred.discard(task)

    def begin(self, task: str, readings: Readings) -> str | None:
        """Wake up for a round. None: fetch the version; else why the round is deferred."""
        self._lifecycle.advance(Event.TRIGGER_FIRED)
        if refused := refusal(self._guards, readings):
            self._put_off(task, Event.GUARD_REFUSED)
            return refused
        self._lifecycle.advance(Event.GUARDS_AGREED)
        return None

    def version_unavailable(self, task: str) -> None:
        """There is no version to train on now: defer the round."""
        self._put_off(task, Event.VERSION_UNAVAILABLE)

    def samples_dropped(self, task: str, new_samples: int, readings: Readings) -> str | None:
        """Samples do not fit the version that was fetched, and are gone. None: go on; else why there is no round now.

        Of those that no round has seen, at most `new_samples` are left: where they fire no trigger, more have to come.
        """
        trigger = self._triggers[task]
        trigger.new_samples = min(trigger.new_samples, new_samples)
        if trigger.missing_samples:
            self._lifecycle.advance(Event.GUARD_REFUSED)
            return f"{trigger.new_samples} new samples are left, the trigger needs {trigger.settings.new_samples}"
        if refused := refusal(self._guards, readings):
            self._put_off(task, Event.GUARD_REFUSED)
        return refused

    def version_ready(self, task: str, start: StartingPoint) -> str | None:
        """The version is fetched. None: train; else why the round is deferred."""
        if self._diverged.get(task) == start:
            self._put_off(task, Event.VERSION_UNAVAILABLE)
            return f"training from version {start.version} on these samples diverged; waits for a version or a sample"
        self._lifecycle.advance(Event.VERSION_READY)
        return None

    def failed(self, task: str, version: KnownVersion | None, now: float) -> float:
        """The round failed; its trigger is deferred. Returns the seconds to wait, longer each time.

        `version` is None where the version is not to blame: then `recheck_seconds`.
        """
        self._put_off(task, Event.ROUND_FAILED)
        return self._guards.recheck_seconds if version is None else self._failures.fail(task, version, now)

    def diverged(self, task: str, start: StartingPoint) -> None:
        """Training from `start` diverged, and would again: don't repeat it."""
        self._diverged[task] = start

    def ended(self, task: str, new_samples: int) -> None:
        """The round is over, whether or not it sends anything. `new_samples` have arrived since it read its own."""
        self._lifecycle.advance(Event.ROUND_ENDED)
        self._triggers[task].new_samples = new_samples
        self._failures.succeed(task)

    def answered(self, row: OutboxRow, receipt: Receipt, newest: KnownVersion | None, now: float) -> AfterReceipt:
        """A payload has its receipt. What it says of the newest version decides when that is trained from again."""
        if receipt.outcome is Outcome.ACCEPTED:
            self._refusals.succeed(row.task)
            return AfterReceipt()
        trained_from = row.base_version, row.bundle, row.generation
        if newest is None or (newest.version, newest.bundle, newest.generation) != trained_from:
            return AfterReceipt()
        if receipt.reason in OUTDATED_REASONS:
            self._outdated[row.task] = newest
            return AfterReceipt(is_outdated=True)
        if receipt.reason in TOO_LARGE:
            return AfterReceipt(wait_seconds=self._refusals.fail(row.task, newest, now))
        return AfterReceipt()

    def _put_off(self, task: str, event: Event) -> None:
        self._lifecycle.advance(event)
        self._deferred.add(task)
