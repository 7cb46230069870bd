"""One agent in virtual time: the shipped cores of rounds and version choice, error feedback, codec and envelopes.

Modelled is what the shipped shells get from asyncio, SQLite and MQTT: when things happen, and what survives a crash
(`DeviceMemory`).
"""

from collections.abc import Callable
from functools import partial
from typing import Final, Protocol

from edge_agent.core.guards import MINUTES_OF_A_DAY, Readings
from edge_agent.core.lifecycle import IN_A_ROUND, State
from edge_agent.core.round_decisions import RoundDecisions, StartingPoint
from edge_agent.core.triggers import Trigger, TriggerSettings
from edge_agent.core.version_choice import KnownVersion
from edge_agent.training.round import DivergedError
from edge_agent.worker.contract import TrainingResult, Withheld
from fleet_protocol.cluster_plan import NO_CLUSTER
from fleet_protocol.codec import device_model
from fleet_protocol.codec.sparse import FloatVector
from fleet_protocol.errors import ProtocolError
from workbench.simulation.conditions import FleetMember
from workbench.simulation.device.manifest_listener import SimulatedListener
from workbench.simulation.device.permits import RoundPermits
from workbench.simulation.device.postbox import Answered, SimulatedPostbox
from workbench.simulation.device.power import Power
from workbench.simulation.device.rounds import SimulatedRounds
from workbench.simulation.device.version_follower import SimulatedVersionFollower
from workbench.simulation.messages import DeviceEnd
from workbench.simulation.sleepers import Process, Sleepers
from workbench.simulation.world import PublishedVersion, SimulatedWorld

TRIGGER: Final = TriggerSettings()
"""Devices train when samples have arrived, as shipped."""


class WakePolicy(Protocol):
    """Decides when agents wake: it calls `trigger` on those that are `available`."""

    def started(self, agent: "SimulatedAgent") -> None:
        """`agent` was switched on."""
        ...

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
        "_permits",
        "_postbox",
        "_power",
        "_recheck",
        "_rounds",
        "_sleepers",
        "_task",
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
        process, memory = sleepers.process(number), sleepers.memory(number)
        is_on, conditions = process.is_on, member.conditions
        self.number = number
        self._member = member
        self._end = end
        self._world = world
        self._wake_policy = wake_policy
        self._sleepers = sleepers
        self._fell_asleep = fell_asleep
        self._memory = memory
        self._task = world.task.task
        end.boot = process.boot
        self._power = Power(
            number, conditions, world.queue, world.generator, is_on=is_on, will_crash=process.will_crash
        )
        self._postbox = SimulatedPostbox(world, number, end, memory, conditions)
        self._postbox.connected = is_on and world.always_connected
        self._versions = SimulatedVersionFollower(world, end, memory, process.selection_threshold)
        self._listener = SimulatedListener(world, number, has_heard=process.has_heard)
        self._permits = RoundPermits(world, number, member, memory, self._versions)
        self._rounds = SimulatedRounds(world, number, member, memory, end)
        self._decisions = self._new_decisions()
        self._deferred = False
        self._awaits_scale = False
        self._recheck = 0

    @property
    def available(self) -> bool:
        """Whether a trigger would start a round."""
        return self._power.is_on and self._decisions.state is State.SLEEPING and not self._held

    @property
    def may_be_drawn(self) -> bool:
        """Whether an experiment that has devices train may choose it now."""
        return self.available and self._permits.may_be_drawn

    @property
    def missing_samples(self) -> int:
        """How many have to come until the trigger fires; 0 where it has."""
        return self._decisions.missing_samples(self._task)

    @property
    def samples_per_hour(self) -> float:
        """How many come."""
        return self._member.conditions.samples_per_hour

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

    def switch(self) -> None:
        """It is switched on, with a new process, or off, or its power fails."""
        if self._power.is_on:
            self._power_off()
        else:
            self._power_on()

    def take_samples(self, count: int) -> None:
        """So many have come."""
        self._memory.newest_sample += count
        self._decisions.samples_arrived(self._task, count)

    def take_all_samples(self) -> None:
        """Every different one has come."""
        self.take_samples(self._world.workload.count(self.number))

    def trigger(self) -> None:
        """Enough samples have come: decide, fetch, train."""
        memory, minute = self._memory, int(self._now // 60) % MINUTES_OF_A_DAY
        stored = self._rounds.stored_count(memory.newest_sample)
        if refused := self._decisions.begin(self._task, Readings(stored, len(memory.outbox), minute=minute)):
            self._world.ledger.guard_refusals[refused] += 1
            self._put_off()
            return
        self._postbox.connect()
        manifest_bytes = self._listener.take()
        version = self._world.newest
        known = self._follow(version)
        asks_itself = self._world.always_connected or version.task.selection is not None
        if asks_itself and (not_asked := self._versions.why_not_asked(version)):
            self._find_no_version(not_asked)
            return
        self._later(
            self._download_seconds(manifest_bytes + self._versions.fetch(known)),
            partial(self._fetched, version, known),
        )

    def receive(self, data: bytes) -> None:
        """Act on a message on the device's own topic; a device that is off receives none."""
        if self._postbox.connected:
            if answered := self._postbox.receive(data):
                self._answered(answered)
            self.rest()

    def rest(self) -> None:
        """Become a row again, if a row can hold all that there is."""
        fell_asleep = self._fell_asleep
        if fell_asleep is None or not self._fits_a_row:
            return
        self._power.end_cycle()
        process = Process(
            is_on=self._power.is_on,
            will_crash=self._power.will_crash,
            boot=self._end.boot,
            selection_threshold=self._versions.selection_threshold,
            has_heard=self._listener.has_heard,
        )
        self._sleepers.store(self.number, self._memory, process)
        self._fell_asleep = None  # what is still planned for this object finds nothing to do
        fell_asleep(self)

    @property
    def _fits_a_row(self) -> bool:
        memory = self._memory
        if self._power.planned or self._deferred or self._awaits_scale:
            return False
        if memory.outbox or memory.returned or memory.charges or memory.noised or memory.own or memory.drift:
            return False
        if not self._power.is_on:
            return True
        is_quiet = memory.enrolled and self._postbox.connected and not self._listener.is_listening
        return is_quiet and self._decisions.are_as_new(self._task, memory.known)

    @property
    def _now(self) -> float:
        return self._world.queue.now

    @property
    def _held(self) -> bool:
        """Whether it waits for another version, of which it hears then, or for a wait to end."""
        return self._decisions.is_held(self._task, self._memory.known, self._now)

    def _power_on(self) -> None:
        if not self._power.switch_on():
            return
        self._end.boot += 1
        self._decisions = self._new_decisions()
        self._versions.restart()
        self._postbox.restart()
        self._wake_policy.started(self)
        if self._memory.outbox or self._world.always_connected:
            self._postbox.connect()
        self._idle()

    def _power_off(self) -> None:
        self._wake_policy.count(self)
        ledger = self._world.ledger
        ledger.crashes += self._power.switch_off()
        ledger.rounds_lost += self._decisions.state in IN_A_ROUND
        self._rounds.drop()
        self._postbox.disconnect()
        self._deferred = False
        self._listener.follow(self._hear_of_version, connected=False, waits=False)

    def _new_decisions(self) -> RoundDecisions:
        return RoundDecisions(self._member.guards, {self._task: Trigger(TRIGGER, self._memory.new_samples)})

    def _later(self, seconds: float, action: Callable[[], None]) -> None:
        """Plan an action that is dropped if the device is switched off before. Until then it stays awake."""
        self._world.queue.after(seconds, partial(self._act, action, self._power.plan()))

    def _act(self, action: Callable[[], None], power_cycle: int) -> None:
        if self._power.is_due(power_cycle):
            action()
            self.rest()

    def _download_seconds(self, size: int) -> float:
        return self._member.conditions.download_seconds(size)

    def _idle(self) -> None:
        self._deferred = self._deferred or self._held
        self._listen()
        self._wake_policy.idle(self)

    def _follow(self, version: PublishedVersion) -> KnownVersion:
        known = self._versions.receive_manifest(version)
        self._awaits_scale = self._awaits_scale and self._memory.fetched == known
        self._decisions.manifest_changed(self._task, self._memory.new_samples)
        return known

    def _fetched(self, version: PublishedVersion, known: KnownVersion) -> None:
        self._memory.fetched = known
        self._awaits_scale = version.task.scaling.is_awaited
        self._wake_policy.count(self)
        start = StartingPoint(known.version, known.bundle, self._memory.newest_sample)
        if why := self._permits.why_not_yet(known.version, version.manifest.cohort):
            self._find_no_version(why)
        elif self._decisions.version_ready(self._task, start):
            self._put_off()
        else:
            self._begin_round(version, known, start)

    def _begin_round(self, version: PublishedVersion, known: KnownVersion, start: StartingPoint) -> None:
        if withheld := self._rounds.begin(version, known, start, self._versions.last_weights(known)):
            self._decisions.ended(self._task, self._memory.new_samples, withheld.words)
            self._idle()
            return
        self._later(self._rounds.seconds(self._world.task, start), partial(self._train, version, known, start))

    def _train(self, version: PublishedVersion, known: KnownVersion, start: StartingPoint) -> None:
        """The round is at its end."""
        try:
            result = self._rounds.result(version)
        except (DivergedError, ProtocolError) as error:
            self._fail(error, known, start)
            return
        self._rounds.end(result, version, known, start)
        what = result.words if isinstance(result, Withheld) else result.kept or "spooled"
        self._decisions.ended(self._task, self._memory.new_samples, what)
        self._postbox.notify()
        if isinstance(result, TrainingResult) and result.statistics:
            self._put_off()
        else:
            self._idle()

    def _fail(self, error: DivergedError | ProtocolError, known: KnownVersion, start: StartingPoint) -> None:
        self._rounds.drop()
        diverged = isinstance(error, DivergedError)
        if diverged:
            self._decisions.diverged(self._task, start)
        self._put_off(self._decisions.failed(self._task, known, self._now, str(error)))
        if diverged and self._held:
            self._wake_policy.idle(self)

    def _find_no_version(self, why: str) -> None:
        self._decisions.version_unavailable(self._task, why)
        self._put_off()

    def _put_off(self, seconds: float | None = None) -> None:
        """Retry after `seconds`, else `recheck_seconds`, or when a receipt or a version comes."""
        self._recheck += 1
        wait = seconds or self._member.guards.recheck_seconds
        self._world.queue.after(wait, partial(self._recheck_due, self._recheck, self._power.cycle))
        self._deferred = True
        self._listen()

    def _recheck_due(self, recheck: int, power_cycle: int) -> None:
        if self._power.cycle == power_cycle:
            self._retry_deferred_trigger(recheck)
            self.rest()

    def _retry_deferred_trigger(self, recheck: int) -> None:
        """Retry the deferred trigger, unless it was retried meanwhile."""
        if self._recheck == recheck and self._deferred:
            self._deferred = False
            self._decisions.retry_deferred_trigger(self._task)
            self._idle()

    def _listen(self) -> None:
        waits = self._decisions.waits_for_version(self._task, self._memory.known, self._now)
        self._listener.follow(
            self._hear_of_version, connected=self._postbox.connected, waits=waits or self._awaits_scale
        )

    def _hear_of_version(self, size: int) -> None:
        """A manifest of `size` bytes is on its way to every device that listens."""
        self._later(self._download_seconds(size), partial(self._heard_of_version, self._recheck))

    def _heard_of_version(self, recheck: int) -> None:
        if self._decisions.state is State.SLEEPING:
            self._follow(self._world.newest)
            self._retry_deferred_trigger(recheck)
            self._listen()

    def _answered(self, answered: Answered) -> None:
        after = self._decisions.answered(answered.row, answered.receipt, self._memory.known, self._now)
        if after.wait_seconds is not None:
            self._put_off(after.wait_seconds)
        if not self._memory.outbox:
            self._wake_policy.settled(self)
        self._retry_deferred_trigger(self._recheck)
        if not self._memory.outbox and self.available and not self._world.always_connected:
            self._postbox.disconnect()
        self._listen()
