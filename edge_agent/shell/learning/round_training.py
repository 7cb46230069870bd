"""One round on a version that is ready: the worker trains, and what it gives is spooled in one transaction."""

import logging
import secrets
from collections.abc import Callable, Sequence
from functools import partial

from edge_agent.core.generations import carried_over
from edge_agent.core.norm_memory import divided, joined
from edge_agent.core.outbox import SignRow, SpooledPayload
from edge_agent.producers import PRODUCERS, given_back, produce
from edge_agent.shell.samples.sample_store import SampleStore
from edge_agent.shell.storage.device_database import DeviceDatabase, SpooledRound, TaskMemory
from edge_agent.shell.versions.version_follower import ReadyVersion, VersionFollower
from edge_agent.worker.contract import (
    News,
    Progress,
    RebuildFailure,
    TrainingFailure,
    TrainingJob,
    TrainingResult,
    Verdict,
    Withheld,
)
from edge_agent.worker.settings import WorkerSettings
from edge_agent.worker.supervisor import TrainingWorker
from fleet_host.log_lines import log_line
from fleet_protocol.bundle import TaskDescription
from fleet_protocol.kinds import PayloadKind
from fleet_protocol.remedies import STEADIER_TRAINING

logger = logging.getLogger(__name__)

LIFE_BITS = 32
"""Of an error feedback's `life`, which tells its state from one that the device had before its database was emptied."""


class RoundFailedError(Exception):
    """The worker reported a failure; nothing has changed but samples that were unfit, which are deleted.

    `diverged`: another try from the same version and samples would fail alike. `mended`: another try would not.
    """

    def __init__(self, failure: TrainingFailure | RebuildFailure, *, mended: bool = False) -> None:
        super().__init__(failure.error)
        self.diverged = isinstance(failure, TrainingFailure) and failure.diverged
        self.mended = mended


class RoundTraining:
    """Runs the worker, one round at a time."""

    def __init__(
        self,
        settings: WorkerSettings,
        database: DeviceDatabase,
        samples: SampleStore,
        versions: VersionFollower,
        *,
        address: Callable[[PayloadKind], tuple[int, bytes]],
        sign: SignRow,
    ) -> None:
        """`address` says which kind a payload is sent as, and which key it is encrypted for.

        Raises:
            ConfigurationError: from `address`, for a kind that this device would produce.
        """
        self._settings = settings
        self._worker = TrainingWorker(settings)
        self._database = database
        self._samples = samples
        self._versions = versions
        self._address = address
        self._sign = sign
        self._said_unconfined = False
        self.progress: Progress | None = None
        for producer in PRODUCERS.values():
            address(producer.kind)

    @property
    def spent_milliseconds(self) -> int:
        """Processor time of rounds whose worker is still there."""
        return self._worker.spent_milliseconds

    @property
    def ends_by(self) -> float | None:
        """When the round that runs must have ended, on the event loop's clock; None: none runs."""
        return self._worker.ends_by

    async def end(self) -> None:
        """End the worker, should it still be there."""
        await self._worker.end()

    def drop_unfit_samples(self, description: TaskDescription) -> int:
        """Delete the samples that a version's task can't use, and features of a former backbone.

        Returns how many samples there were of the first kind.

        Raises:
            sqlite3.Error, OSError: the disk.
        """
        task = description.task
        if (judged := self._samples.judge(description)).refused:
            reason = f"do not fit the schema, which has come; the first: {judged.reason}"
            logger.warning(log_line("samples_dropped", task=task, count=judged.refused, reason=reason))
        if misfits := self._samples.drop_misfits(description):
            logger.warning(log_line("samples_dropped", task=task, count=misfits, reason="do not fit the schema"))
        if features := self._samples.drop_other_features(description):
            logger.info(log_line("features_dropped", task=task, count=features, reason="made by another backbone"))
        return judged.refused + misfits

    async def run(self, task: str, version: ReadyVersion) -> Withheld | None:
        """Train from `version`, and spool what comes of it; returns why nothing does, where the round is withheld.

        Raises:
            RoundFailedError: the worker gave no result.
            VersionUnavailableError, LinkDownError: the weights came packed, did not unpack, and can't be fetched whole.
            sqlite3.Error, OSError: the disk.
        """
        memory = self._database.memory(task, version.bundle)
        verdict = await self._run_worker(task, version, memory)
        if isinstance(verdict, RebuildFailure):
            self._versions.refuse_packed(version, verdict.error)
            version = await self._versions.ready_version(task)
            memory = self._database.memory(task, version.bundle)
            verdict = await self._run_worker(task, version, memory)
        if isinstance(verdict, TrainingFailure | RebuildFailure):
            raise RoundFailedError(verdict, mended=self._mend_store(task, verdict))
        self._versions.hold(version)
        if isinstance(verdict, Withheld):
            self._database.withhold(task, version.bundle, verdict.trained_through, verdict.epochs)
            return verdict
        self._spool(task, version, memory, verdict)
        return Withheld("unchanged", verdict.kept, verdict.trained_through, verdict.epochs) if verdict.kept else None

    def _mend_store(self, task: str, failure: TrainingFailure | RebuildFailure) -> bool:
        """Delete samples that can't be used, or all where their file is damaged, so that the next round does not fail
        alike; False where there is nothing to mend.
        """
        if isinstance(failure, RebuildFailure) or not (failure.unfit or failure.store_damaged):
            return False
        if failure.store_damaged:
            self._samples.start_anew(failure.error)
            return True
        self._samples.drop(task, failure.unfit)
        logger.warning(log_line("samples_dropped", task=task, count=len(failure.unfit), reason=failure.error))
        return True

    def _spool(self, task: str, version: ReadyVersion, memory: TaskMemory, result: TrainingResult) -> None:
        payloads = produce(version.description, result)
        merged_before = self._database.merged_back
        rows = self._database.spool(
            SpooledRound(
                task=task,
                bundle=version.bundle,
                base_version=version.number,
                trained_through=result.trained_through,
                payloads=tuple(SpooledPayload(*self._address(kind), payload) for kind, payload in payloads),
                residual=joined(version.description.sending, result.usual_norm, result.residual),
                returned=tuple(given_back(memory.returned)),
                generation=version.generation,
                epochs=result.epochs,
            ),
            self._sign,
        )
        if merged := self._database.merged_back - merged_before:
            logger.warning(log_line("updates_merged_back", count=merged, waiting_bytes=self._database.waiting_bytes()))
        _say_of_what_to_correct(task, result)
        if result.kept:
            return
        size = sum(len(payload) for _, payload in payloads)
        _say_spooled(task, version.number, [row.sequence for row in rows], size, result)

    async def _run_worker(self, task: str, version: ReadyVersion, memory: TaskMemory) -> Verdict:
        settings = self._settings
        state, returned = carried_over(
            version.description,
            version.generation,
            memory.residual,
            memory.generation,
            memory.returned,
        )
        sending = version.description.sending
        usual_norm, residual = divided(sending, state)
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
            trained_through=memory.trained_through,
            epochs=memory.epochs,
            usual_norm=usual_norm,
            last_weights=str(version.last or "") if sending.rule == "relevant" else "",
            packed=version.packed,
        )
        try:
            return await self._worker.train(job, partial(self._receive_news, task))
        finally:
            self.progress = None

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
        self.progress = progress
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


def _say_of_what_to_correct(task: str, result: TrainingResult) -> None:
    if result.forgotten:
        logger.warning(
            log_line(
                "residual_shrunk",
                task=task,
                forgotten_norm=result.forgotten,
                remedy=f"none if the device was offline for long; else {STEADIER_TRAINING}",
            )
        )
    if result.unlike_the_fleet:
        logger.warning(
            log_line(
                "units_differ",
                task=task,
                reason=result.unlike_the_fleet,
                remedy="if its unit is another, correct the program that takes the samples",
            )
        )


def _say_spooled(task: str, version: int, sequences: Sequence[int], size: int, result: TrainingResult) -> None:
    numbers = ",".join(map(str, sequences))
    if result.statistics or result.feature_statistics:
        logger.info(
            log_line(
                "statistics_spooled",
                task=task,
                version=version,
                sequences=numbers,
                payload_bytes=size,
                samples=result.samples,
            )
        )
        return
    logger.info(
        log_line(
            "round_spooled",
            task=task,
            version=version,
            sequences=numbers,
            payload_bytes=size,
            loss=result.loss,
            features_computed=result.features_computed,
        )
    )
