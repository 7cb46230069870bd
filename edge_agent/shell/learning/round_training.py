"""One round on a version that is ready: the worker trains, and what it gives is spooled in one transaction."""

import logging
import secrets
import time
from collections.abc import Mapping
from functools import partial

from edge_agent.core.cut_choice import CutChoice
from edge_agent.core.generations import carried_over
from edge_agent.core.norm_memory import divided
from edge_agent.core.prompt_memory import without_mark
from edge_agent.core.prompt_settings import PromptSettings
from edge_agent.core.selection import RoundFigures, after_round
from edge_agent.core.turns import why_not_yet
from edge_agent.core.version_choice import needs_last_weights
from edge_agent.producers import given_back
from edge_agent.shell.gossiping.gossip import ANOTHER_BUNDLE, Gossip
from edge_agent.shell.learning.cohorts import Cohorts
from edge_agent.shell.learning.round_spool import RoundSpool
from edge_agent.shell.learning.sample_budget import NO_CHARGE, ChargedRound, SampleBudget
from edge_agent.shell.samples.sample_store import SampleStore
from edge_agent.shell.splitting.helped_rounds import HelpedRounds
from edge_agent.shell.storage.device_database import DeviceDatabase, KeptOfRound, TaskMemory
from edge_agent.shell.versions.version_follower import ReadyVersion, VersionFollower
from edge_agent.worker.contract import (
    GossipRound,
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
from fleet_host import seal
from fleet_host.log_lines import log_line
from fleet_protocol.errors import ProtocolError
from fleet_protocol.kinds import Selection
from fleet_protocol.limits import MAX_SAMPLES_PER_UPDATE
from fleet_protocol.task_description import TaskDescription

logger = logging.getLogger(__name__)

LIFE_BITS = 32
"""Of an error feedback's `life`, which tells its state from one that the device had before its database was emptied."""


MOST_TRIES = 8
"""Of one round: a device that runs out of memory, and meets helpers that go, comes to an end all the same."""


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
        cuts: CutChoice,
        helpers: HelpedRounds,
        spool: RoundSpool,
        prompting: Mapping[str, PromptSettings],
        budget: SampleBudget,
        cohorts: Cohorts,
        gossip: Gossip,
    ) -> None:
        """`prompting` is by task what the owner lets this device tell."""
        self._settings = settings
        self._worker = TrainingWorker(settings)
        self._database = database
        self._samples = samples
        self._versions = versions
        self._cuts = cuts
        self._helpers = helpers
        self._spool = spool
        self._prompting = prompting
        self._budget = budget
        self._cohorts = cohorts
        self._gossip = gossip
        self._said_unconfined = False
        self._has_stepped = False
        """Whether a worker of the round may have made a step."""
        self.progress: Progress | None = None

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

    def why_refused(self, description: TaskDescription) -> str | None:
        """Why the device's owner does not let it learn for a task, in words; None where it may."""
        return self._budget.refusal(description)

    def what_is_missing(self, description: TaskDescription) -> str | None:
        """What a task needs that is not installed on this device, in words; None where nothing is missing."""
        encrypts = description.masks is not None and description.masks.key_holder is not None
        if encrypts and seal.is_missing():
            return f"updates of {description.task} are encrypted for a key holder, and TenSEAL is not installed"
        return None

    def why_no_cohort(self, description: TaskDescription) -> str | None:
        """Why no round of a task with masks begins now, in words; None where one may."""
        return self._cohorts.why_none(description)

    def why_not_yet(self, version: ReadyVersion) -> str | None:
        """Why no round begins now, in words, as nothing that comes of it would count; None where one may."""
        task = version.description
        if task.gossip is not None:
            return self._gossip.why_not(version)
        if (plan := task.device_privacy) is None:
            return self._cohorts.why_spent(version)
        turns, waiting = self._database.turns(task.task, version.bundle), self._database.waiting(task.task)
        return why_not_yet(plan, turns, version.number, waiting=waiting)

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

    def needs_no_manifest(self, task: str) -> bool:
        """Whether a round of the task need not ask which version is the newest."""
        return self._gossip.needs_no_manifest(task)

    async def run(self, task: str, version: ReadyVersion) -> Withheld | GossipRound | None:
        """Train from `version`, and spool what comes of it; returns why nothing does, where the round is withheld, and
        what came of a round among neighbours.

        Raises:
            RoundFailedError: the worker gave no result.
            NoHelperError: the device leaves some blocks to a helper, and there is none now.
            VersionUnavailableError, LinkDownError: the weights came packed, did not unpack, and can't be fetched whole.
            sqlite3.Error, OSError: the disk.
        """
        charged = self._budget.charge(version.description)
        if isinstance(charged, Withheld):
            self._database.withhold(task, version.bundle, charged.trained_through, charged.epochs)
            return charged
        self._has_stepped = False
        began, selection = time.monotonic(), self._versions.selection(task)
        memory = self._database.memory(task, version.bundle)
        verdict = await self._run_worker(task, version, memory, charged)
        tries = 1
        while tries < MOST_TRIES and self._has_another_way(version, verdict):
            tries += 1
            again = await self._versions.ready_version(task)
            if again.bundle != version.bundle:
                break  # the owner agreed to the other one, and its round was charged
            version = again
            memory = self._database.memory(task, version.bundle)
            verdict = await self._run_worker(task, version, memory, charged)
        if isinstance(verdict, TrainingFailure | RebuildFailure):
            if not self._has_stepped:
                self._budget.give_back(task, charged)
            if isinstance(verdict, TrainingFailure):
                self._database.set_drift_memory(task, version.bundle, version.generation, verdict.drift)
            raise RoundFailedError(verdict, mended=self._is_mended(task, verdict))
        self._versions.hold(version)
        if isinstance(verdict, GossipRound):
            if not self._gossip.commit(task, version.bundle, verdict):
                raise RoundFailedError(TrainingFailure(ANOTHER_BUNDLE), mended=True)
            if verdict.diverged:
                raise RoundFailedError(TrainingFailure(verdict.diverged))  # not again alike: it has mixed meanwhile
            return verdict
        if isinstance(verdict, Withheld):
            kept = KeptOfRound(version.generation, verdict.own, verdict.drift)
            self._database.withhold(task, version.bundle, verdict.trained_through, verdict.epochs, kept)
            return verdict
        figures = self._figures(version, selection, verdict, time.monotonic() - began)
        self._spool.put(task, version, memory, verdict, figures)
        return Withheld("unchanged", verdict.kept, verdict.trained_through, verdict.epochs) if verdict.kept else None

    def _figures(
        self, version: ReadyVersion, selection: Selection | None, result: TrainingResult, seconds: float
    ) -> RoundFigures | None:
        """What the next rounds are selected by, where the task selects and the round has sent an update."""
        task = version.description
        if task.selection is None or task.scaling.is_awaited or result.kept:
            return None
        before = self._database.round_figures(task.task, version.bundle)
        counted = min(result.samples, task.aggregation.max_samples)
        return after_round(before, selection, counted, result.loss, seconds)

    def _has_another_way(self, version: ReadyVersion, verdict: Verdict) -> bool:
        """Whether the round can begin anew in another way: with the whole weights, with another helper, or with less of
        the model here.
        """
        if isinstance(verdict, RebuildFailure):
            if not version.packed:
                return False
            self._versions.refuse_packed(version, verdict.error)
            return True
        if not isinstance(verdict, TrainingFailure):
            return False
        if verdict.helper_lost:
            logger.warning(log_line("helper_lost", task=version.description.task, reason=verdict.error))
            return True
        return verdict.out_of_memory and self._takes_less(version, verdict)

    def _takes_less(self, version: ReadyVersion, failure: TrainingFailure) -> bool:
        task = version.description
        cut = self._cuts.of(task)
        if not self._cuts.note_too_large(task, cut):
            return False
        logger.warning(
            log_line("cut_too_large", task=task.task, cut=cut.name, next=self._cuts.of(task).name, reason=failure.error)
        )
        return True

    def _is_mended(self, task: str, failure: TrainingFailure | RebuildFailure) -> bool:
        """Whether the next round would not fail alike: samples that can't be used are deleted, all where their file is
        damaged; or it was the helper's fault.
        """
        if isinstance(failure, RebuildFailure):
            return False
        if not (failure.unfit or failure.store_damaged):
            return failure.helper_lost
        if failure.store_damaged:
            self._samples.start_anew(failure.error)
            return True
        self._samples.drop(task, failure.unfit)
        logger.warning(log_line("samples_dropped", task=task, count=len(failure.unfit), reason=failure.error))
        return True

    async def _run_worker(
        self, task: str, version: ReadyVersion, memory: TaskMemory, charged: ChargedRound = NO_CHARGE
    ) -> Verdict:
        settings = self._settings
        told, stored = without_mark(version.description.prompts, memory.residual)
        state, returned = carried_over(
            version.description, version.generation, stored, memory.generation, memory.returned
        )
        sending = version.description.sending
        usual_norm, residual = divided(sending, state)
        job = TrainingJob(
            description=charged.description or version.description,
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
            last_weights=str(version.last or "") if needs_last_weights(version.description) else "",
            packed=version.packed,
            cut=self._cuts.of(version.description),
            prompting=self._prompting[task],
            told=told if memory.generation == version.generation else b"",
            cluster=version.cluster,
            own=b"" if version.description.gossip else version.own,
            gossip=self._gossip.job(task, version.bundle) if version.description.gossip else None,
            drift=self._drift(version),
            versions_since=version.number - version.last_number if version.last else 0,
            among=charged.among,
            cohort=(joined := self._cohorts.join(version)),
            budgets=charged.budgets,
            samples_alone=charged.samples_alone,
        )
        try:
            verdict = await self._train(version, job)
        finally:
            self.progress = None
        if joined is None or not isinstance(verdict, TrainingResult):
            return verdict
        try:
            return self._cohorts.signed(verdict, joined)
        except ProtocolError as error:
            return TrainingFailure(str(error))

    def _drift(self, version: ReadyVersion) -> bytes:
        task = version.description
        if not task.training.remembers_drift:
            return b""
        return self._database.drift_memory(task.task, version.bundle, version.generation)

    async def _train(self, version: ReadyVersion, job: TrainingJob) -> Verdict:
        receive = partial(self._receive_news, version.description.task)
        if not job.cut.helper:
            return await self._worker.train(job, receive)
        samples = min(self._samples.count(version.description.task), MAX_SAMPLES_PER_UPDATE)
        async with self._helpers.session(version, job.cut, samples) as session:
            return session.judged(await self._worker.train(job, receive, session))

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
        self._has_stepped = self._has_stepped or progress.phase != "reading"
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
