"""Rounds: a trigger fires, the guards agree, a version is fetched, the worker trains, the result is spooled."""

import asyncio
import logging
import sqlite3
from collections.abc import Callable
from functools import partial

from edge_agent.configuration import AgentConfiguration, TaskSettings
from edge_agent.core.guards import Readings, refusal
from edge_agent.core.lifecycle import Event, Lifecycle, State
from edge_agent.shell import machine
from edge_agent.shell.device_database import DeviceDatabase, SignUpdate, SpooledRound, TaskMemory
from edge_agent.shell.link import LinkDownError
from edge_agent.shell.sample_store import SampleStore
from edge_agent.shell.version_follower import NotAskedError, ReadyVersion, VersionFollower, VersionUnavailableError
from edge_agent.worker.contract import Progress, RebuildFailure, TrainingFailure, TrainingJob, TrainingResult, Verdict
from edge_agent.worker.supervisor import train_in_child
from fleet_protocol.kinds import Update, encode_payload

log = logging.getLogger(__name__)


class RoundFailedError(Exception):
    """The worker reported a failure; nothing has changed."""


class Rounds:
    """The training side of an agent: one round at a time, over all its tasks."""

    def __init__(
        self,
        configuration: AgentConfiguration,
        database: DeviceDatabase,
        samples: SampleStore,
        versions: VersionFollower,
        *,
        sign: SignUpdate,
        spooled: Callable[[], None],
    ) -> None:
        self._configuration = configuration
        self._database = database
        self._samples = samples
        self._versions = versions
        self._sign = sign
        self._spooled = spooled
        self._lifecycle = Lifecycle()
        self._wake = asyncio.Event()
        self._recheck: asyncio.TimerHandle | None = None
        self._progress: Progress | None = None
        self._diverged: dict[str, tuple[int, str, int]] = {}
        self._new_samples = {task.name: self._count_new(task.name) for task in configuration.tasks}

    @property
    def state(self) -> State:
        """What the training side does right now."""
        return self._lifecycle.state

    @property
    def progress(self) -> Progress | None:
        """How far the round has come that the worker is in."""
        return self._progress

    @property
    def new_samples(self) -> dict[str, int]:
        """Per task, samples that no round has seen."""
        return dict(self._new_samples)

    def sample_arrived(self, task: str) -> None:
        """Count a sample, and wake up where it fires a trigger; not while a fired one waits for a better moment."""
        self._new_samples[task] += 1
        due = any(self._is_due(settings) for settings in self._configuration.tasks if settings.name == task)
        if due and self._recheck is None:
            self._wake.set()

    def retry_deferred_trigger(self) -> None:
        """Something changed that may let a fired trigger through: a link, a version, a receipt."""
        if self._recheck is not None:
            self._recheck.cancel()
            self._recheck = None
        self._wake.set()

    async def run(self) -> None:
        """Sleep, wake, train; until cancelled."""
        self._wake.set()
        while True:
            await self._wake.wait()
            self._wake.clear()
            for task in self._configuration.tasks:
                while self._is_due(task) and await self._run_round(task.name):
                    pass

    def _is_due(self, task: TaskSettings) -> bool:
        return self._new_samples[task.name] >= task.trigger.new_samples

    async def _run_round(self, task: str) -> bool:
        """One pass through the life cycle; whether an update was spooled."""
        self._lifecycle.advance(Event.TRIGGER_FIRED)
        if refused := refusal(self._configuration.guards, self._readings(task)):
            return self._put_off(Event.GUARD_REFUSED, "guard_refused", task, refused)
        self._lifecycle.advance(Event.GUARDS_AGREED)
        try:
            version = await self._versions.ready_version(task)
        except NotAskedError as error:
            return self._put_off(Event.VERSION_UNAVAILABLE, "not_asked", task, str(error), logging.INFO)
        except (VersionUnavailableError, LinkDownError) as error:
            return self._put_off(Event.VERSION_UNAVAILABLE, "no_version", task, str(error))
        if self._diverged.get(task) == self._starting_point(task, version):
            return self._put_off(
                Event.VERSION_UNAVAILABLE,
                "would_diverge",
                task,
                f"training from version {version.number} on these samples diverged; waits for a version or a sample",
            )
        self._lifecycle.advance(Event.VERSION_READY)
        try:
            await self._train(task, version)
        except (RoundFailedError, VersionUnavailableError, LinkDownError, sqlite3.Error, OSError) as error:
            return self._put_off(Event.ROUND_FAILED, "round_dropped", task, str(error))
        self._lifecycle.advance(Event.ROUND_SPOOLED)
        self._new_samples[task] = self._count_new(task)
        self._spooled()
        self._versions.forget_unused([settings.name for settings in self._configuration.tasks])
        return True

    def _put_off(self, event: Event, name: str, task: str, reason: str, level: int = logging.WARNING) -> bool:
        """Go back to sleep with a trigger that has fired; it is looked at again when something changes, or later."""
        self._lifecycle.advance(event)
        log.log(level, "event=%s task=%s reason=%r", name, task, reason)
        if self._recheck is None:
            loop = asyncio.get_running_loop()
            self._recheck = loop.call_later(self._configuration.guards.recheck_seconds, self.retry_deferred_trigger)
        return False

    async def _train(self, task: str, version: ReadyVersion) -> None:
        if dropped := self._samples.drop_misfits(version.description):
            log.warning("event=samples_dropped task=%s count=%d reason='do not fit the schema'", task, dropped)
        if dropped := self._samples.drop_other_features(version.description):
            log.info("event=features_dropped task=%s count=%d reason='made by another backbone'", task, dropped)
        memory = self._database.memory(task, version.bundle)
        verdict = await self._run_worker(task, version, memory)
        if isinstance(verdict, RebuildFailure):
            self._versions.refuse_packed(version, verdict.error)
            version = await self._versions.ready_version(task)
            memory = self._database.memory(task, version.bundle)
            verdict = await self._run_worker(task, version, memory)
        if isinstance(verdict, TrainingFailure):
            self._learn_from(task, version, verdict)
        if not isinstance(verdict, TrainingResult):
            raise RoundFailedError(verdict.error)
        self._versions.hold(version)
        row = self._database.spool(
            SpooledRound(
                task=task,
                bundle=version.bundle,
                base_version=version.number,
                trained_through=verdict.trained_through,
                packed=verdict.packed,
                payload=update_payload(verdict),
                residual=verdict.residual,
                returned=tuple(sequence for sequence, _ in memory.returned),
            ),
            self._sign,
        )
        log.info(
            "event=update_spooled task=%s version=%d sequence=%d bytes=%d loss=%.4f features_computed=%d",
            task,
            version.number,
            row.sequence,
            len(row.envelope),
            verdict.loss,
            verdict.features_computed,
        )

    async def _run_worker(self, task: str, version: ReadyVersion, memory: TaskMemory) -> Verdict:
        settings = self._configuration.worker
        job = TrainingJob(
            description=version.description,
            engine=settings.engine,
            files={name: str(path) for name, path in version.files.items()},
            weights=str(version.weights),
            sample_store=str(self._samples.path),
            residual=memory.residual,
            returned=[packed for _, packed in memory.returned],
            seed=memory.rounds,
            threads=settings.threads,
            nice=settings.nice,
            memory_limit_mib=settings.memory_limit_mib,
            packed=version.packed,
        )
        try:
            return await train_in_child(job, settings, partial(self._hear_progress, task))
        finally:
            self._progress = None

    def _hear_progress(self, task: str, progress: Progress) -> None:
        self._progress = progress
        log.debug(
            "event=training task=%s phase=%s step=%d steps=%d loss=%s",
            task,
            progress.phase,
            progress.steps_done,
            progress.steps,
            progress.loss,
        )

    def _learn_from(self, task: str, version: ReadyVersion, failure: TrainingFailure) -> None:
        """What would only fail again is not tried again."""
        if failure.unfit:
            self._samples.drop(task, failure.unfit)
            log.warning("event=samples_dropped task=%s count=%d reason=%r", task, len(failure.unfit), failure.error)
        if failure.diverged:
            self._diverged[task] = self._starting_point(task, version)

    def _starting_point(self, task: str, version: ReadyVersion) -> tuple[int, str, int]:
        """What a round depends on, besides the residual: it draws its batches from a seed that counts rounds."""
        return version.number, version.bundle, self._samples.newest(task)

    def _readings(self, task: str) -> Readings:
        return Readings(
            stored_samples=self._samples.count(task),
            waiting_updates=self._database.waiting(),
            temperature_celsius=machine.temperature_celsius(),
            battery_percent=machine.battery_percent(),
            free_memory_mib=machine.free_memory_mib(),
        )

    def _count_new(self, task: str) -> int:
        return self._samples.count_after(task, self._database.trained_through(task))


def update_payload(result: TrainingResult) -> bytes:
    """The payload of an update. A loss of three digits is enough to watch training by, and travels in few bytes."""
    return encode_payload(Update(result.samples, result.steps, round(result.loss, 3), result.packed, result.life))
