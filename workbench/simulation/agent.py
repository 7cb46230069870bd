"""One agent in virtual time: the shipped cores of rounds and version choice, error feedback, codec and envelopes.

Modelled is what the shipped shells get from asyncio, SQLite and MQTT: when things happen, and what survives a crash
(`DeviceMemory`).
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Final, Protocol

from edge_agent.core.guards import MINUTES_OF_A_DAY, Readings
from edge_agent.core.lifecycle import State
from edge_agent.core.outbox import OutboxRow
from edge_agent.core.round_decisions import RoundDecisions, StartingPoint
from edge_agent.core.sample_budget import is_spent
from edge_agent.core.selection import after_round
from edge_agent.core.triggers import Trigger, TriggerSettings
from edge_agent.core.turns import Turns, why_not_yet
from edge_agent.core.version_choice import KnownVersion
from edge_agent.producers import kept_of, produce
from edge_agent.training.round import DivergedError
from edge_agent.worker.contract import TrainingResult, Withheld
from fleet_protocol.cluster_plan import NO_CLUSTER
from fleet_protocol.codec import device_model
from fleet_protocol.codec.sparse import FloatVector
from fleet_protocol.errors import ProtocolError
from fleet_protocol.kinds import Receipt
from workbench.simulation.conditions import FleetMember
from workbench.simulation.device_memory import stored_count
from workbench.simulation.event_queue import Alarm
from workbench.simulation.manifest_listener import SimulatedListener
from workbench.simulation.masks.device import why_no_round
from workbench.simulation.messages import DeviceEnd
from workbench.simulation.postbox import SimulatedPostbox
from workbench.simulation.privacy_budget import charged, spent_samples
from workbench.simulation.round_job import RoundJob
from workbench.simulation.rounds import begun_round, ended_round, round_seconds
from workbench.simulation.sleepers import Sleepers
from workbench.simulation.version_follower import SimulatedVersionFollower
from workbench.simulation.world import PublishedVersion, SimulatedWorld

TRIGGER: Final = TriggerSettings()
"""Devices train when samples have arrived, as shipped."""


class WakePolicy(Protocol):
    """Decides when agents wake: it calls `trigger` on those that are `available`."""

    def idle(self, agent: "SimulatedAgent") -> None:
        """`agent` has started, has ended a round, or retries a deferred trigger."""
        ...

    def count(self, agent: "SimulatedAgent") -> None:
        """Count the samples that `agent` has by now: it begins to train, or is about to be switched off."""
        ...

    def settled(self, agent: "SimulatedAgent") -> None:
        """The last payload of `agent` that was waiting has its receipt."""
        ...

    def arrive(self, agent: "SimulatedAgent") -> None:
        """The samples that `agent` waits for have come."""
        ...


class SimulatedAgent:
    """Device `number` of the fleet; `wake_policy` decides when it starts a round. It begins as its row in `sleepers`
    has it, and calls `fell_asleep` when it is there again; None: it never is.
    """

    __slots__ = (
        "_awaits_scale",
        "_decisions",
        "_deferred",
        "_end",
        "_fell_asleep",
        "_listener",
        "_member",
        "_memory",
        "_on",
        "_planned",
        "_postbox",
        "_power_cycle",
        "_recheck",
        "_sleepers",
        "_versions",
        "_wake_policy",
        "_world",
        "number",
    )

    def __init__(
        self,
        number: int,
        member: FleetMember,
        end: DeviceEnd,
        world: SimulatedWorld,
        wake_policy: WakePolicy,
        *,
        sleepers: Sleepers,
        fell_asleep: "Callable[[SimulatedAgent], None] | None",
    ) -> None:
        self.number = number
        self._member = member
        self._end = end
        self._world = world
        self._wake_policy = wake_policy
        self._sleepers = sleepers
        self._fell_asleep = fell_asleep
        self._on = bool(sleepers.is_on[number])
        self._memory = sleepers.memory(number)
        self._end.boot = sleepers.boots[number]
        self._postbox = SimulatedPostbox(world, end, self._memory, member.conditions, self)
        self._postbox.connected = self._on and world.always_connected
        self._decisions = self._new_decisions()
        self._versions = SimulatedVersionFollower(world, end, self._memory, sleepers.selection_threshold(number))
        self._listener = SimulatedListener(world, number, has_heard=sleepers.has_heard(number))
        self._deferred = False
        self._awaits_scale = False
        self._power_cycle = 0
        self._recheck = 0
        self._planned = 0
        """Actions that are under way."""

    @property
    def samples_counted_at(self) -> float:
        """When its samples were counted last."""
        return self._sleepers.counted_at[self.number]

    @samples_counted_at.setter
    def samples_counted_at(self, now: float) -> None:
        self._sleepers.counted_at[self.number] = now

    def wait_for_samples(self, count: int, seconds: float) -> None:
        """It waits for so many, which come in so many seconds."""
        self._sleepers.awaited[self.number] = count
        self._world.queue.set_alarm(Alarm.SAMPLES, self.number, seconds)

    def stop_waiting(self) -> int:
        """It waits for samples no longer; returns for how many it did."""
        count = self._sleepers.awaited[self.number]
        if count:
            self._sleepers.awaited[self.number] = 0
            self._world.queue.stop_alarm(Alarm.SAMPLES, self.number)
        return count

    @property
    def available(self) -> bool:
        """Whether a trigger would start a round."""
        return self._on and self._decisions.state is State.SLEEPING and not self._held

    @property
    def missing_samples(self) -> int:
        """How many have to come until the trigger fires; 0 where it has."""
        return self._decisions.missing_samples(self._world.task.task)

    @property
    def holds_enough(self) -> bool:
        """Whether its store can ever hold as many samples as its guards want."""
        return self._member.holds_enough(self._world.workload.count(self.number))

    @property
    def is_spent(self) -> bool:
        """Whether it has trained on its samples as often as it may, and no new one has come."""
        memory = self._memory
        task = self._world.task
        told_all = 0 < memory.newest_sample <= spent_samples(memory.charges, task, self._member.owner)
        return told_all or (not memory.new_samples and is_spent(task.training, memory.epochs))

    @property
    def waits_its_turn(self) -> bool:
        """Whether an update would not count behind the newest version, where the task takes few of one device; or no
        cohort would sum it; or others are selected.
        """
        if self._world.task.selection is not None and self._versions.why_not_asked(self._world.newest):
            return True
        coordinator = self._world.coordinator
        cohort = coordinator.manifest().cohort if self._world.task.masks else b""
        return self._why_not_yet(coordinator.version, cohort) is not None

    @property
    def hides_samples(self) -> bool:
        """Whether its owner lets it add the noise of tasks that have some."""
        return self._member.owner.noise != "none"

    @property
    def rounds_charged(self) -> int:
        """Rounds that a sample that was there from the start has paid for, where the task counts it."""
        return len(self._memory.charges)

    @property
    def updates_made(self) -> int:
        """Rounds that ended in an update."""
        return self._memory.rounds - self._memory.withheld

    @property
    def updates_waiting(self) -> int:
        """Of them, those without a receipt."""
        return len(self._memory.outbox)

    @property
    def keeps_something(self) -> bool:
        """Whether it has a part of the model, or a model, of its own."""
        return bool(self._memory.own)

    def model(self, shared: FloatVector) -> FloatVector:
        """What it answers with where the fleet shares the model `shared`, both f32[P]."""
        return device_model(shared, self._memory.own, self._world.task)

    @property
    def cluster(self) -> int:
        """The one that it is in, as far as it knows."""
        plan = self._world.task.clusters
        return plan.cluster(self._memory.cluster) if plan else NO_CLUSTER

    @property
    def member(self) -> FleetMember:
        """What the device can do and bear."""
        return self._member

    @property
    def now(self) -> float:
        """Virtual seconds."""
        return self._world.queue.now

    def power_on(self) -> None:
        """The device starts, or restarts with a new process."""
        conditions = self._member.conditions
        queue = self._world.queue
        if (wait := conditions.seconds_until_open(queue.now)) > 0:
            queue.set_alarm(Alarm.POWER, self.number, wait)
            return
        self._turn(on=True)
        self._end.boot += 1
        self._decisions = self._new_decisions()
        self._versions.restart()
        self._postbox.restart()
        self.samples_counted_at = queue.now
        seconds, crashes = conditions.seconds_on(queue.now, self._world.generator)
        if seconds < math.inf:
            self._sleepers.crashes[self.number] = crashes
            queue.set_alarm(Alarm.POWER, self.number, seconds)
        if self._memory.outbox or self._world.always_connected:
            self._postbox.connect()
        self._idle()

    def take_samples(self, count: int) -> None:
        """So many have come."""
        self._memory.newest_sample += count
        self._decisions.samples_arrived(self._world.task.task, count)

    def take_all_samples(self) -> None:
        """Every different one has come."""
        self.take_samples(self._world.workload.count(self.number))

    def trigger(self) -> None:
        """Enough samples have come: decide, fetch, train."""
        stored = self._stored_count(self._memory.newest_sample)
        readings = Readings(stored, len(self._memory.outbox), minute=int(self.now // 60) % MINUTES_OF_A_DAY)
        if refused := self._decisions.begin(self._world.task.task, readings):
            self._world.ledger.guard_refusals[refused] += 1
            self._put_off()
            return
        self._postbox.connect()
        manifest_bytes = self._listener.take()
        version = self._world.newest
        known = self._follow(version)
        asks_itself = self._world.always_connected or version.task.selection is not None
        not_asked = self._versions.why_not_asked(version) if asks_itself else None
        if not_asked:
            self._decisions.version_unavailable(self._world.task.task, not_asked)
            self._put_off()
            return
        self.later(
            self._member.conditions.download_seconds(manifest_bytes + self._versions.fetch(known)),
            partial(self._fetched, version, known),
        )

    def _follow(self, version: PublishedVersion) -> KnownVersion:
        known = self._versions.receive_manifest(version)
        self._awaits_scale = self._awaits_scale and self._memory.fetched == known
        self._decisions.manifest_changed(version.task.task, self._memory.new_samples)
        return known

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        """Plan an action that is dropped if the device is switched off before. Until then it stays awake."""
        self._planned += 1
        self._world.queue.after(seconds, partial(self._act, action, self._power_cycle))

    def _act(self, action: Callable[[], None], power_cycle: int) -> None:
        if self._power_cycle == power_cycle:
            self._planned -= 1
            action()
            self.rest()

    def rest(self) -> None:
        """Become a row again, if a row can hold all that there is."""
        fell_asleep = self._fell_asleep
        if fell_asleep is None or not self._fits_a_row:
            return
        self._power_cycle += 1
        self._sleepers.boots[self.number] = self._end.boot
        self._sleepers.store(
            self.number,
            self._memory,
            selection_threshold=self._versions.selection_threshold,
            has_heard=self._listener.has_heard,
        )
        self._fell_asleep = None  # what is still planned for this object finds nothing to do
        self._postbox.let_go()
        fell_asleep(self)

    @property
    def _fits_a_row(self) -> bool:
        memory = self._memory
        if self._planned or self._deferred or self._awaits_scale:
            return False
        if memory.outbox or memory.returned or memory.charges or memory.noised or memory.own or memory.drift:
            return False
        if not self._on:
            return True
        is_quiet = memory.enrolled and self._postbox.connected and not self._listener.is_listening
        return is_quiet and self._decisions.are_as_new(self._world.task.task, memory.known)

    def _turn(self, *, on: bool) -> None:
        self._on = on
        self._sleepers.is_on[self.number] = on

    @property
    def _held(self) -> bool:
        """Whether it waits for another version, of which it hears then, or for a wait to end."""
        return self._decisions.is_held(self._world.task.task, self._memory.known, self.now)

    def _listen(self) -> None:
        waits = self._decisions.waits_for_version(self._world.task.task, self._memory.known, self.now)
        self._listener.follow(
            self._hear_of_version, connected=self._postbox.connected, waits=waits or self._awaits_scale
        )

    def _idle(self) -> None:
        self._deferred = self._deferred or self._held
        self._listen()
        self._wake_policy.idle(self)

    def _new_decisions(self) -> RoundDecisions:
        trigger = Trigger(TRIGGER, self._memory.new_samples)
        return RoundDecisions(self._member.guards, {self._world.task.task: trigger})

    def _fetched(self, version: PublishedVersion, known: KnownVersion) -> None:
        self._memory.fetched = known
        self._awaits_scale = version.task.scaling.is_awaited
        self._wake_policy.count(self)
        start = StartingPoint(known.version, known.bundle, self._memory.newest_sample)
        if why := self._why_not_yet(known.version, version.manifest.cohort):
            self._decisions.version_unavailable(self._world.task.task, why)
            self._put_off()
            return
        if self._decisions.version_ready(self._world.task.task, start):
            self._put_off()
            return
        self._begin_round(version, known, start)

    def _begin_round(self, version: PublishedVersion, known: KnownVersion, start: StartingPoint) -> None:
        """What the round begins with is taken now, as on a device: what comes in meanwhile is for the next one."""
        memory, newest = self._memory, start.newest_sample
        last_weights = self._versions.last_weights(known)
        job = begun_round(
            self._world, self.number, self._member, memory, version, newest_sample=newest, last_weights=last_weights
        )
        if withheld := charged(memory.charges, version.task, newest, self._member.owner):
            self._withhold(withheld, known, start)
            self._idle()
            return
        self._world.begin_round(job)
        seconds = round_seconds(self._world.task, self._member.conditions, self._stored_count(newest))
        self.later(seconds, partial(self._train, version, known, start))

    def _why_not_yet(self, newest: int, cohort: bytes) -> str | None:
        """Why an update would not count now, in words, where the task takes few of one device or sums cohorts."""
        task, memory = self._world.task, self._memory
        waiting = len(memory.outbox)
        if task.masks is not None:
            bundle = memory.known.bundle if memory.known else ""
            return why_no_round(task, bundle, cohort, memory.noised, self._member.owner, waits=waiting > 0)
        if (plan := task.device_privacy) is None:
            return None
        return why_not_yet(plan, memory.turns, newest, waiting=waiting)

    def _stored_count(self, newest_sample: int) -> int:
        return stored_count(newest_sample, self._world.workload.count(self.number), self._member.maximum_samples)

    def _train(self, version: PublishedVersion, known: KnownVersion, start: StartingPoint) -> None:
        """The round is at its end."""
        task = version.task
        job = self._world.jobs.pop(self.number)
        try:
            result = ended_round(self._world, job, self._memory, version, end=self._end, owner=self._member.owner)
        except ProtocolError as error:
            self._put_off(self._decisions.failed(task.task, known, self.now, str(error)))
            return
        except DivergedError as error:
            ledger = self._world.ledger
            ledger.rounds_diverged = ledger.rounds_diverged.again(str(error))
            self._memory.drift = self._memory.drift if error.drift is None else error.drift
            self._decisions.diverged(task.task, start)
            self._put_off(self._decisions.failed(task.task, known, self.now, str(error)))
            if self._held:
                self._wake_policy.idle(self)
            return
        if isinstance(result, Withheld):
            self._withhold(result, known, start)
        else:
            result = self._world.tamper(self.number, task, result)
            self._note_figures(result, version, start)
            self._spool(result, job, known, start)
        self._postbox.notify()
        if isinstance(result, TrainingResult):
            if result.statistics:
                self._put_off()
                return
            self._world.residuals.put(self.number, result.residual)
        self._idle()

    def _spool(self, result: TrainingResult, job: RoundJob, known: KnownVersion, start: StartingPoint) -> None:
        task = self._world.task
        memory = self._memory
        if task.clusters is not None and task.clusters.by_devices:
            memory.cluster = result.cluster
        for kind, payload in produce(task, result):
            number, recipient = self._end.address(kind)
            row = OutboxRow(
                memory.sequence + 1,
                number,
                task.task,
                known.bundle,
                known.version,
                recipient,
                payload,
                generation=known.generation,
                kept=kept_of(kind, result),
            )
            memory.spool(row, self._end.sign_row)
            memory.turns = Turns(memory.turns.count + 1, known.version)
        memory.returned = [row for row in memory.returned if row.sequence not in job.returned]
        memory.usual_norm = result.usual_norm
        if result.kept:
            self._count_withheld("unchanged")
        self._end_round(result, known, start, result.kept or "spooled")

    def _note_figures(self, result: TrainingResult, version: PublishedVersion, start: StartingPoint) -> None:
        """What later rounds are selected by: as `RoundTraining` notes it."""
        memory, task = self._memory, version.task
        if task.selection is None or task.scaling.is_awaited or result.kept:
            return
        seconds = round_seconds(task, self._member.conditions, self._stored_count(start.newest_sample))
        counted = min(result.samples, task.aggregation.max_samples)
        memory.figures = after_round(memory.figures, version.manifest.selection, counted, result.loss, seconds)

    def _withhold(self, withheld: Withheld, known: KnownVersion, start: StartingPoint) -> None:
        self._count_withheld(withheld.why)
        self._end_round(withheld, known, start, withheld.words)

    def _count_withheld(self, why: str) -> None:
        self._memory.withheld += 1
        self._world.ledger.rounds_withheld[why] += 1

    def _end_round(
        self, result: TrainingResult | Withheld, known: KnownVersion, start: StartingPoint, what: str
    ) -> None:
        memory = self._memory
        memory.held = known
        memory.rounds += 1
        memory.epochs = result.epochs
        memory.own = memory.own if result.own is None else result.own
        memory.drift = memory.drift if result.drift is None else result.drift
        memory.trained_through = start.newest_sample
        self._decisions.ended(self._world.task.task, memory.new_samples, what)

    def _put_off(self, seconds: float | None = None) -> None:
        """Retry after `seconds`, else `recheck_seconds`, or when a receipt or a version comes."""
        self._recheck += 1
        wait = seconds or self._member.guards.recheck_seconds
        self._world.queue.after(wait, partial(self._recheck_due, self._recheck, self._power_cycle))
        self._deferred = True
        self._listen()

    def _recheck_due(self, recheck: int, power_cycle: int) -> None:
        if self._power_cycle == power_cycle:
            self._retry_deferred_trigger(recheck)
            self.rest()

    def _retry_deferred_trigger(self, recheck: int) -> None:
        """Retry the deferred trigger, unless it was retried meanwhile."""
        if self._recheck == recheck and self._deferred:
            self._deferred = False
            self._decisions.retry_deferred_trigger(self._world.task.task)
            self._idle()

    def _hear_of_version(self, size: int) -> None:
        """A manifest of `size` bytes is on its way to every device that listens."""
        self.later(self._member.conditions.download_seconds(size), partial(self._heard_of_version, self._recheck))

    def _heard_of_version(self, recheck: int) -> None:
        if self._decisions.state is State.SLEEPING:
            self._follow(self._world.newest)
            self._retry_deferred_trigger(recheck)
            self._listen()

    def answered(self, row: OutboxRow, receipt: Receipt) -> None:
        """See `PostboxOwner`."""
        after = self._decisions.answered(row, receipt, self._memory.known, self.now)
        if after.wait_seconds is not None:
            self._put_off(after.wait_seconds)
        if not self._memory.outbox:
            self._wake_policy.settled(self)
        self._retry_deferred_trigger(self._recheck)
        if not self._memory.outbox and self.available and not self._world.always_connected:
            self._postbox.disconnect()
        self._listen()

    def power_off(self, *, crashed: bool) -> None:
        """Its hours are over, or its power fails."""
        self._wake_policy.count(self)
        self._power_cycle += 1
        self._planned = 0
        self._world.jobs.pop(self.number, None)
        self._turn(on=False)
        self._postbox.disconnect()
        self._deferred = False
        self._listener.follow(self._hear_of_version, connected=False, waits=False)
        self._world.ledger.rounds_lost += self._decisions.state in {State.FETCHING, State.TRAINING}
        self._world.ledger.crashes += crashed
        self._world.queue.set_alarm(
            Alarm.POWER, self.number, self._member.conditions.restart_seconds if crashed else 0.0
        )
