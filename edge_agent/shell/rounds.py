"""Rounds: a trigger fires, the guards agree, a version is fetched, the worker trains, its payloads are spooled.

`core.round_decisions` decides; this module has the timer, the files and the worker.
"""

import asyncio
import logging
import secrets
import sqlite3
from collections.abc import Callable
from functools import partial

from edge_agent.configuration import AgentConfiguration
from edge_agent.core.generations import carried_over
from edge_agent.core.guards import Readings
from edge_agent.core.lifecycle import State
from edge_agent.core.outbox import SignRow, SpooledPayload
from edge_agent.core.round_decisions import RoundDecisions, StartingPoint
from edge_agent.core.triggers import SampleTrigger
from edge_agent.core.version_choice import NotAskedError, VersionUnavailableError
from edge_agent.producers import PRODUCERS, given_back, produce
from edge_agent.shell import machine
from edge_agent.shell.device_database import DeviceDatabase, SpooledRound, TaskMemory
from edge_agent.shell.link import LinkDownError
from edge_agent.shell.sample_store import SampleStore
from edge_agent.shell.version_follower import ReadyVersion, VersionFollower
from edge_agent.worker.contract import (
    News,
    Progress,
    RebuildFailure,
    TrainingFailure,
    TrainingJob,
    TrainingResult,
    Verdict,
)
from edge_agent.worker.supervisor import train_in_child
from fleet_host.log_lines import log_line
from fleet_protocol.kinds import PayloadKind

logger = logging.getLogger(__name__)

LIFE_BITS = 32
"""Of an error feedback's `life`, which tells its state from one that the device had before its database was emptied."""


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
        address: Callable[[PayloadKind], tuple[int, bytes]],
        sign: SignRow,
        spooled: Callable[[], None],
    ) -> None:
        """`address` says which kind a payload is sent as, and which key it is encrypted for.

        Raises:
            ConfigurationError: from `address`, for a kind that this device would produce.
        """
        self._configuration = configuration
        self._tasks = [task.name for task in configuration.tasks]
        self._database = database
        self._samples = samples
        self._versions = versions
        self._address = address
        self._sign = sign
        self._spooled = spooled
        self._wake = asyncio.Event()
        self._recheck: asyncio.TimerHandle | None = None
        self._progress: Progress | None = None
        self._said_unconfined = False
        triggers = {task.name: SampleTrigger(task.trigger, self._count_new(task.name)) for task in configuration.tasks}
        self._decisions = RoundDecisions(configuration.guards, triggers)
        for producer in PRODUCERS.values():
            address(producer.kind)

    @property
    def state(self) -> State:
        """What the training side is doing."""
        return self._decisions.state

    @property
    def progress(self) -> Progress | None:
        """Progress of the worker's round; None between rounds."""
        return self._progress

    @property
    def new_samples(self) -> dict[str, int]:
        """Per task, samples that no round has seen."""
        return {task: self._decisions.new_samples(task) for task in self._tasks}

    def sample_arrived(self, task: str) -> None:
        """Count a sample, and wake up if it fires a trigger."""
        if self._decisions.samples_arrived(task):
            self._wake.set()

    def manifest_changed(self, task: str) -> None:
        """A manifest has brought something new."""
        self._decisions.manifest_changed(task, self._count_new(task))
        self.retry_deferred_trigger()

    def retry_deferred_trigger(self) -> None:
        """Something changed that may allow a deferred round: a connection, a version, a receipt."""
        if self._recheck is not None:
            self._recheck.cancel()
            self._recheck = None
        self._decisions.retry_deferred_trigger()
        self._wake.set()

    async def run(self) -> None:
        """Sleep, wake, train; until cancelled."""
        self._wake.set()
        while True:
            await self._wake.wait()
            self._wake.clear()
            for task in self._tasks:
                while self._decisions.is_due(task) and await self._run_round(task):
                    pass

    async def _run_round(self, task: str) -> bool:
        """Run one round; returns whether its payloads were spooled."""
        if refused := self._decisions.begin(self._readings(task)):
            logger.warning(log_line("guard_refused", task=task, reason=refused))
            return self._put_off()
        try:
            version = await self._versions.ready_version(task)
        except NotAskedError as error:
            self._decisions.version_unavailable()
            logger.info(log_line("not_selected", task=task, reason=error))
            return self._put_off()
        except (VersionUnavailableError, LinkDownError) as error:
            self._decisions.version_unavailable()
            logger.warning(log_line("version_unavailable", task=task, reason=error))
            return self._put_off()
        if refused := self._decisions.version_ready(task, self._starting_point(task, version)):
            logger.warning(log_line("divergence_expected", task=task, reason=refused))
            return self._put_off()
        try:
            await self._train(task, version)
        except (RoundFailedError, VersionUnavailableError, LinkDownError, sqlite3.Error, OSError) as error:
            self._decisions.failed()
            logger.warning(log_line("round_failed", task=task, reason=error))
            return self._put_off()
        self._decisions.spooled(task, self._count_new(task))
        self._spooled()
        self._versions.forget_unused(self._tasks)
        return True

    def _put_off(self) -> bool:
        """Sleep with a trigger that has fired. It is retried when something changes, or after `recheck_seconds`."""
        if self._recheck is None:
            loop = asyncio.get_running_loop()
            self._recheck = loop.call_later(self._configuration.guards.recheck_seconds, self.retry_deferred_trigger)
        return False

    async def _train(self, task: str, version: ReadyVersion) -> None:
        if (judged := self._samples.judge(version.description)).refused:
            reason = f"do not fit the schema, which has come; the first: {judged.reason}"
            logger.warning(log_line("samples_dropped", task=task, count=judged.refused, reason=reason))
        if dropped := self._samples.drop_misfits(version.description):
            logger.warning(log_line("samples_dropped", task=task, count=dropped, reason="do not fit the schema"))
        if dropped := self._samples.drop_other_features(version.description):
            logger.info(log_line("features_dropped", task=task, count=dropped, reason="made by another backbone"))
        memory = self._database.memory(task, version.bundle)
        verdict = await self._run_worker(task, version, memory)
        if isinstance(verdict, RebuildFailure):
            self._versions.refuse_packed(version, verdict.error)
            version = await self._versions.ready_version(task)
            memory = self._database.memory(task, version.bundle)
            verdict = await self._run_worker(task, version, memory)
        if isinstance(verdict, TrainingFailure):
            self._note_failure(task, version, verdict)
        if not isinstance(verdict, TrainingResult):
            raise RoundFailedError(verdict.error)
        self._versions.hold(version)
        self._spool(task, version, memory, verdict)

    def _spool(self, task: str, version: ReadyVersion, memory: TaskMemory, result: TrainingResult) -> None:
        payloads = produce(version.description, result)
        rows = self._database.spool(
            SpooledRound(
                task=task,
                bundle=version.bundle,
                base_version=version.number,
                trained_through=result.trained_through,
                payloads=tuple(SpooledPayload(*self._address(kind), payload) for kind, payload in payloads),
                residual=result.residual,
                returned=tuple(given_back(memory.returned)),
                generation=version.generation,
            ),
            self._sign,
        )
        logger.info(
            log_line(
                "round_spooled",
                task=task,
                version=version.number,
                sequences=",".join(str(row.sequence) for row in rows),
                payload_bytes=sum(len(payload) for _, payload in payloads),
                loss=result.loss,
                features_computed=result.features_computed,
            )
        )

    async def _run_worker(self, task: str, version: ReadyVersion, memory: TaskMemory) -> Verdict:
        settings = self._configuration.worker
        residual, returned = carried_over(
            version.description.update.feedback,
            version.generation,
            memory.residual,
            memory.generation,
            memory.returned,
        )
        job = TrainingJob(
            description=version.description,
            engine=settings.engine,
            files={name: str(path) for name, path in version.files.items()},
            weights=str(version.weights),
            sample_store=str(self._samples.path),
            residual=residual,
            returned=list(given_back(returned).values()),
            seed=memory.rounds,
            life=1 + secrets.randbits(LIFE_BITS),
            threads=settings.threads,
            nice=settings.nice,
            memory_limit_mib=settings.memory_limit_mib,
            cpu_limit_seconds=settings.cpu_limit_seconds,
            packed=version.packed,
        )
        try:
            return await train_in_child(job, settings, partial(self._receive_news, task))
        finally:
            self._progress = None

    def _receive_news(self, task: str, news: News) -> None:
        if isinstance(news, Progress):
            self._note_progress(task, news)
        elif not self._said_unconfined:
            self._said_unconfined = True
            logger.warning(
                log_line(
                    "worker_not_confined",
                    lacking=news.lacking,
                    remedy="none needed; a kernel from 5.13 on, with Landlock and seccomp, keeps bundles from it",
                )
            )

    def _note_progress(self, task: str, progress: Progress) -> None:
        self._progress = progress
        logger.debug(
            log_line(
                "training_progress",
                task=task,
                phase=progress.phase,
                step=progress.steps_done,
                steps=progress.steps,
                loss=progress.loss,
            )
        )

    def _note_failure(self, task: str, version: ReadyVersion, failure: TrainingFailure) -> None:
        """Delete samples that can't be used, and note a divergence, so that the next round does not fail alike."""
        if failure.unfit:
            self._samples.drop(task, failure.unfit)
            logger.warning(log_line("samples_dropped", task=task, count=len(failure.unfit), reason=failure.error))
        if failure.diverged:
            self._decisions.diverged(task, self._starting_point(task, version))

    def _starting_point(self, task: str, version: ReadyVersion) -> StartingPoint:
        return StartingPoint(version.number, version.bundle, self._samples.newest(task), version.generation)

    def _readings(self, task: str) -> Readings:
        guards = self._configuration.guards
        return Readings(
            stored_samples=self._samples.count(task),
            waiting_updates=self._database.waiting(),
            temperature=machine.temperature(guards),
            battery=machine.battery(guards),
            free_memory_mib=machine.free_memory_mib(guards),
        )

    def _count_new(self, task: str) -> int:
        return self._samples.count_after(task, self._database.trained_through(task))
