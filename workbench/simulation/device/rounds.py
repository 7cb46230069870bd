"""The rounds of a simulated device: what one begins with, what it gives, and what it leaves in the device's memory."""

from dataclasses import replace

from edge_agent.core.outbox import OutboxRow
from edge_agent.core.round_decisions import StartingPoint
from edge_agent.core.selection import after_round
from edge_agent.core.turns import Turns
from edge_agent.core.version_choice import KnownVersion
from edge_agent.producers import given_back, kept_of, produce
from edge_agent.training.round import DivergedError
from edge_agent.worker.contract import TrainingResult, Withheld
from fleet_protocol.codec.sparse import FloatVector
from fleet_protocol.task_description import TaskDescription
from workbench.simulation.conditions import FleetMember
from workbench.simulation.device.privacy_budget import as_chosen, charged, spent_samples
from workbench.simulation.device_memory import DeviceMemory, stored_count
from workbench.simulation.masks.device import CohortRound
from workbench.simulation.messages import DeviceEnd
from workbench.simulation.round_job import RoundJob, carried_out, round_seconds
from workbench.simulation.world import PublishedVersion, SimulatedWorld


class SimulatedRounds:
    """Those of device `number`, one at a time."""

    __slots__ = ("_end", "_member", "_memory", "_number", "_world")

    def __init__(
        self, world: SimulatedWorld, number: int, member: FleetMember, memory: DeviceMemory, end: DeviceEnd
    ) -> None:
        self._world = world
        self._number = number
        self._member = member
        self._memory = memory
        self._end = end

    def stored_count(self, newest_sample: int) -> int:
        """How many samples are stored when so many have come."""
        return stored_count(newest_sample, self._world.workload.count(self._number), self._member.maximum_samples)

    def seconds(self, task: TaskDescription, start: StartingPoint) -> float:
        """How long a round takes."""
        return round_seconds(task, self._member.conditions, self.stored_count(start.newest_sample))

    def begin(
        self, version: PublishedVersion, known: KnownVersion, start: StartingPoint, last_weights: FloatVector | None
    ) -> Withheld | None:
        """What the round begins with is taken now, as on a device: what comes in meanwhile is for the next one. Where
        samples can't bear it, it is over, and why is returned. `last_weights` f32[P] as of `Earlier`.
        """
        memory, newest = self._memory, start.newest_sample
        job = self._job(version, newest, last_weights)
        if withheld := charged(memory.charges, version.task, newest, self._member.owner):
            self._withhold(withheld, known, start)
            return withheld
        self._world.begin_round(job)
        return None

    def result(self, version: PublishedVersion) -> TrainingResult | Withheld:
        """What the round gives, which is at its end.

        Raises:
            DivergedError: as `take_part`.
            ProtocolError: as `CohortRound`.
        """
        try:
            return self._carried_out(self._world.jobs[self._number], version)
        except DivergedError as error:
            ledger = self._world.ledger
            ledger.rounds_diverged = ledger.rounds_diverged.again(str(error))
            self._memory.drift = self._memory.drift if error.drift is None else error.drift
            raise

    def end(
        self, result: TrainingResult | Withheld, version: PublishedVersion, known: KnownVersion, start: StartingPoint
    ) -> None:
        """Put what the round gives into the outbox, if it is anything to send, and note the round."""
        job = self._world.jobs.pop(self._number)
        if isinstance(result, Withheld):
            self._withhold(result, known, start)
            return
        result = self._world.tamper(self._number, version.task, result)
        self._note_figures(result, version, start)
        self._spool(result, job, known)
        self._note_round(result, known, start)
        if not result.statistics:
            self._world.residuals.put(self._number, result.residual)

    def drop(self) -> None:
        """The round has failed, or the device was switched off."""
        self._world.jobs.pop(self._number, None)

    def _job(self, version: PublishedVersion, newest_sample: int, last_weights: FloatVector | None) -> RoundJob:
        world, memory, member = self._world, self._memory, self._member
        residual = world.residuals.get(self._number)
        begins = world.residuals.begin_lives and not residual
        chooses = version.task.clusters is not None and version.task.clusters.by_devices
        return RoundJob(
            self._number,
            version.task,
            version.weights,
            newest_sample,
            memory.trained_through,
            member.maximum_samples,
            spent_samples(memory.charges, version.task, member.owner),
            residual,
            given_back(memory.returned),
            memory.rounds,
            world.life(self._number) if begins or chooses else 1,
            memory.epochs,
            memory.usual_norm,
            last_weights,
            memory.own,
            memory.drift,
            version.number - memory.held.version if memory.held else 0,
            memory.cluster,
        )

    def _carried_out(self, job: RoundJob, version: PublishedVersion) -> TrainingResult | Withheld:
        """Where rounds draw from the fleet's random numbers, they do so in the order of their ends."""
        world, owner = self._world, self._member.owner
        if world.trainer is not None:
            return world.trainer.result(job)
        task, training, cohort = job.task, world.workload, None
        if task.masks is not None:
            cohort = CohortRound(task, task.masks, version, self._end, owner, generator=world.generator)
        if task.sample_privacy is not None:
            engine, chosen = as_chosen(training.engine, task, owner)
            job, training = replace(job, task=chosen), replace(training, engine=engine)
        mask = cohort.mask if cohort else None
        result = carried_out(job, training, encode=world.encode, draw=world.generator.bytes, mask=mask)
        if cohort is None or isinstance(result, Withheld):
            return result
        return cohort.signed(result, self._memory.noised)

    def _note_figures(self, result: TrainingResult, version: PublishedVersion, start: StartingPoint) -> None:
        """What later rounds are selected by: as `RoundTraining` notes it."""
        memory, task = self._memory, version.task
        if task.selection is None or task.scaling.is_awaited or result.kept:
            return
        counted = min(result.samples, task.aggregation.max_samples)
        seconds = self.seconds(task, start)
        memory.figures = after_round(memory.figures, version.manifest.selection, counted, result.loss, seconds)

    def _spool(self, result: TrainingResult, job: RoundJob, known: KnownVersion) -> None:
        task, memory = self._world.task, self._memory
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

    def _withhold(self, withheld: Withheld, known: KnownVersion, start: StartingPoint) -> None:
        self._count_withheld(withheld.why)
        self._note_round(withheld, known, start)

    def _count_withheld(self, why: str) -> None:
        self._memory.withheld += 1
        self._world.ledger.rounds_withheld[why] += 1

    def _note_round(self, result: TrainingResult | Withheld, known: KnownVersion, start: StartingPoint) -> None:
        memory = self._memory
        memory.held = known
        memory.rounds += 1
        memory.epochs = result.epochs
        memory.own = memory.own if result.own is None else result.own
        memory.drift = memory.drift if result.drift is None else result.drift
        memory.trained_through = start.newest_sample
