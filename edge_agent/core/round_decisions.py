"""When a round begins, is deferred, and ends: the training side of one agent. Pure.

A trigger that fired and was deferred is retried when something changes that may allow the round (a version, a receipt,
a connection), or after `recheck_seconds`. The caller keeps that timer, for each task its own. A version whose rounds
fail, or whose updates are refused, is trained from after growing waits, or not at all until a newer one comes.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from edge_agent.core.delivery import TOO_LARGE, remedy
from edge_agent.core.growing_waits import GrowingWaits
from edge_agent.core.guards import GuardSettings, Readings, objection, refusal
from edge_agent.core.lifecycle import IN_A_ROUND, Event, Lifecycle, LifecycleError, State
from edge_agent.core.outbox import OutboxRow
from edge_agent.core.own_updates import OwnUpdates
from edge_agent.core.triggers import Condition, Trigger
from edge_agent.core.version_choice import KnownVersion, is_new_to
from fleet_protocol.errors import Reason
from fleet_protocol.kinds import Outcome, Receipt

_LIVELIEST_FIRST = (*IN_A_ROUND, State.SLEEPING, State.PAUSED, State.UNREADABLE, State.UNENROLLED, State.ENDED)

OUTDATED_REASONS = frozenset(
    {Reason.TOO_STALE, Reason.UNKNOWN_VERSION, Reason.UNKNOWN_TASK, Reason.TOO_SOON, Reason.PRIVACY_SPENT}
)
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


@dataclass(frozen=True, slots=True)
class TaskState:
    """What a device does for a task, why, and what it waits for; as status shows it."""

    state: State
    reason: str
    waits_for: str


class RoundDecisions:
    """One round at a time, over all tasks of an agent. `triggers` has one for each task, by its name."""

    __slots__ = (
        "_deferred",
        "_diverged",
        "_failures",
        "_guards",
        "_lifecycles",
        "_outdated",
        "_own_updates",
        "_refusals",
        "_triggers",
        "_without_version",
    )

    def __init__(self, guards: GuardSettings, triggers: Mapping[str, Trigger]) -> None:
        self._guards = guards
        self._triggers = triggers
        self._lifecycles = {task: Lifecycle() for task in triggers}
        self._deferred: set[str] = set()
        self._without_version: set[str] = set()
        self._diverged: dict[str, StartingPoint] = {}
        self._outdated: dict[str, KnownVersion] = {}
        self._failures = GrowingWaits()
        self._refusals = GrowingWaits()
        self._own_updates = OwnUpdates()

    @property
    def state(self) -> State:
        """What the training side is doing: that of the task in a round, else the liveliest of them."""
        states = [each.state for each in self._lifecycles.values()]
        return states[0] if len(states) == 1 else min(states, key=_LIVELIEST_FIRST.index)

    def task_state(self, task: str, newest: KnownVersion | None, now: float) -> TaskState:
        """What the device does for a task; `newest` is the newest version that a manifest has named."""
        lifecycle = self._lifecycles[task]
        return TaskState(lifecycle.state, lifecycle.reason, self._waits_for(task, newest, now))

    def _waits_for(self, task: str, newest: KnownVersion | None, now: float) -> str:
        if self._lifecycles[task].state is not State.SLEEPING:
            return ""
        if not self._triggers[task].has_fired:
            return self._triggers[task].waits_for
        if newest is not None and self._is_outdated(task, newest):
            return f"a newer version than {newest.version}, from which updates are refused"
        if self.is_held(task, newest, now):
            return "the end of a wait, as rounds from this version failed, or a newer version"
        if self.is_deferred(task):
            return "the next try, soon, or earlier when something changes"
        return ""

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
        return self._triggers[task].has_fired and task not in self._deferred

    def is_held(self, task: str, newest: KnownVersion | None, now: float) -> bool:
        """Whether nothing is trained now from `newest`, the newest version that a manifest has named: rounds from it
        failed, or updates from it were refused.
        """
        waits = self._failures.holds(task, newest, now) or self._refusals.holds(task, newest, now)
        return waits or self._is_outdated(task, newest)

    def _is_outdated(self, task: str, newest: KnownVersion | None) -> bool:
        """Whether updates from `newest` are refused."""
        return newest is not None and task in self._outdated and self._outdated[task] == newest

    def waits_for_version(self, task: str, newest: KnownVersion | None, now: float) -> bool:
        """Whether a newer version than `newest`, the newest that is known, may change what the device does for a task:
        then it hears of each, and sleeps without otherwise. While a task is paused or has ended, none is made.
        """
        return (
            newest is None
            or self._lifecycles[task].state in {State.PAUSED, State.UNREADABLE, State.ENDED}
            or self._triggers[task].waits_for_version
            or task in self._without_version
            or self.is_held(task, newest, now)
        )

    def are_as_new(self, task: str, newest: KnownVersion | None) -> bool:
        """Whether those of a process that has just started, with as many new samples of its one task, would be the same
        from now on. What once diverged, or was outdated, is over once there is a later version than `newest`.
        """
        diverged = self._diverged.get(task)
        return (
            self._lifecycles[task].is_free
            and not self._deferred
            and not self._without_version
            and self._triggers[task].has_noted_nothing
            and not self._failures.any_for(task)
            and not self._refusals.any_for(task)
            and not self._is_outdated(task, newest)
            and (diverged is None or (newest is not None and diverged.version != newest.version))
            and self._own_updates.is_settled(task)
        )

    def is_due(self, task: str, newest: KnownVersion | None, now: float) -> bool:
        """Whether a round of the task begins now."""
        is_asleep = self._lifecycles[task].state is State.SLEEPING
        return is_asleep and self.has_fired(task) and not self.is_held(task, newest, now)

    def samples_arrived(self, task: str, count: int = 1) -> bool:
        """Count new samples; returns whether the agent wakes up for them. It doesn't while the trigger is deferred."""
        self._triggers[task].new_samples += count
        return self.has_fired(task)

    def samples_recounted(self, task: str, new_samples: int) -> None:
        """Stored samples have changed: `new_samples` are new to the next round."""
        self._triggers[task].new_samples = new_samples

    def manifest_changed(self, task: str, new_samples: int, *, has_ended: bool = False) -> None:
        """The task may have another bundle, to which all stored samples are new: `new_samples` are now. It is not
        paused, as that makes no versions; it may have ended.
        """
        self._triggers[task].new_samples = new_samples
        lifecycle = self._lifecycles[task]
        lifecycle.lift(State.PAUSED)
        if has_ended:
            lifecycle.hinder(State.ENDED, "its operator has removed it; its samples stay here")
        else:
            lifecycle.lift(State.ENDED)

    def not_readable(self, task: str, why: str) -> None:
        """What the coordinator says of the task is of a newer format than this agent reads."""
        self._lifecycles[task].hinder(State.UNREADABLE, why)

    def readable(self, task: str) -> None:
        """What it says of the task now, this agent reads."""
        self._lifecycles[task].lift(State.UNREADABLE)

    def version_known(
        self, task: str, held: KnownVersion | None, newest: KnownVersion | None, now: float
    ) -> float | None:
        """`newest` is the newest version that a manifest has named, `held` the one that was trained from last. Returns
        when to ask again, where `newest` is newer but lacks what this device has sent last.
        """
        is_newer = is_new_to(held, newest)
        until = self._own_updates.waits_until(task, newest, now) if newest is not None and is_newer else None
        trigger = self._triggers[task]
        trigger.has_new_version = is_newer and until is None
        return until if trigger.settings.new_version else None

    def update_spooled(
        self, task: str, trained_from: KnownVersion, behind: int, now: float, round_seconds: float
    ) -> None:
        """The round that has ended took so long, and has left an update in the outbox, with a number above `behind`."""
        self._own_updates.sent(task, trained_from, behind, now, round_seconds)

    def note(self, task: str, condition: Condition) -> None:
        """An event that may wake the agent has happened. Who asks does not wait for the next try either."""
        self._triggers[task].note(condition)
        if condition is Condition.ASKED:
            self._deferred.discard(task)

    def enrolled(self) -> None:
        """The coordinator accepts this device."""
        for lifecycle in self._lifecycles.values():
            lifecycle.lift(State.UNENROLLED)

    def not_enrolled(self, why: str) -> None:
        """It does not, or not yet."""
        for lifecycle in self._lifecycles.values():
            lifecycle.hinder(State.UNENROLLED, why)

    def retry_deferred_trigger(self, task: str) -> None:
        """Something changed that may allow a round of the task, or its wait is over."""
        self._deferred.discard(task)

    def begin(self, task: str, readings: Readings) -> str | None:
        """Wake up for a round. None: fetch the version; else why the round is deferred."""
        if self.state in IN_A_ROUND:
            raise LifecycleError(f"a round of {task} while another task is {self.state.value}")
        fired_by = self._triggers[task].fired_by
        self._lifecycles[task].advance(Event.TRIGGER_FIRED, fired_by)
        self._triggers[task].round_began()
        if refused := refusal(self._guards, readings):
            self._put_off(task, Event.GUARD_REFUSED, refused)
            return refused
        self._lifecycles[task].advance(Event.GUARDS_AGREED, fired_by)
        return None

    def version_unavailable(self, task: str, why: str) -> None:
        """There is no version to train on now: defer the round."""
        self._put_off(task, Event.VERSION_UNAVAILABLE, why)

    def samples_dropped(self, task: str, new_samples: int, readings: Readings) -> str | None:
        """Samples do not fit the version that was fetched, and are gone. None: go on; else why there is no round now.

        Of those that no round has seen, at most `new_samples` are left: where they fire no trigger, more have to come.
        """
        trigger = self._triggers[task]
        trigger.new_samples = min(trigger.new_samples, new_samples)
        if not trigger.has_fired:
            left = f"{trigger.new_samples} new samples are left, the trigger waits for {trigger.waits_for}"
            self._lifecycles[task].advance(Event.GUARD_REFUSED, left)
            return left
        if refused := refusal(self._guards, readings):
            self._put_off(task, Event.GUARD_REFUSED, refused)
        return refused

    def version_ready(self, task: str, start: StartingPoint) -> str | None:
        """The version is fetched. None: train; else why the round is deferred."""
        if self._diverged.get(task) == start:
            again = f"training from version {start.version} on these samples diverged; waits for a version or a sample"
            self._put_off(task, Event.VERSION_UNAVAILABLE, again)
            return again
        self._lifecycles[task].advance(Event.VERSION_READY, f"version {start.version}")
        self._without_version.discard(task)
        return None

    def failed(self, task: str, version: KnownVersion | None, now: float, why: str) -> float:
        """The round failed; its trigger is deferred. Returns the seconds to wait, longer each time.

        `version` is None where the version is not to blame: then `recheck_seconds`.
        """
        self._put_off(task, Event.ROUND_FAILED, why)
        return self._guards.recheck_seconds if version is None else self._failures.fail(task, version, now)

    def why_stop(self, readings: Readings) -> str | None:
        """Why the round that is training is to be stopped now; None where it goes on."""
        return objection(self._guards, readings)

    def stopped(self, task: str, why: str) -> None:
        """It was stopped; nothing has changed. Its trigger is deferred."""
        self._put_off(task, Event.GUARD_REFUSED, why)

    def diverged(self, task: str, start: StartingPoint) -> None:
        """Training from `start` diverged, and would again: don't repeat it."""
        self._diverged[task] = start

    def ended(self, task: str, new_samples: int, what: str) -> None:
        """The round is over, and `what` came of it. `new_samples` have arrived since it read its own."""
        self._lifecycles[task].advance(Event.ROUND_ENDED, what)
        self._triggers[task].new_samples = new_samples
        self._triggers[task].round_ended()
        self._failures.succeed(task)

    def answered(self, row: OutboxRow, receipt: Receipt, newest: KnownVersion | None, now: float) -> AfterReceipt:
        """A payload has its receipt. What it says of the newest version decides when that is trained from again."""
        if receipt.reason == Reason.TASK_PAUSED:
            self._lifecycles[row.task].hinder(State.PAUSED, receipt.detail)
        else:
            self._lifecycles[row.task].lift(State.PAUSED)
        self._own_updates.answered(row, remedy(receipt), newest)
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

    def _put_off(self, task: str, event: Event, why: str) -> None:
        self._lifecycles[task].advance(event, why)
        self._deferred.add(task)
        if event is Event.VERSION_UNAVAILABLE:
            self._without_version.add(task)
