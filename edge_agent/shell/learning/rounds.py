"""Rounds: a trigger fires, the guards agree, a version is fetched, a round is trained; or why not, and when again.

`core.round_decisions` decides; this module has the timers and the log, `shell.round_training` the worker.
"""

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Sequence

from edge_agent.configuration import AgentConfiguration
from edge_agent.core.guards import Readings, refusal
from edge_agent.core.lifecycle import State
from edge_agent.core.outbox import OutboxRow
from edge_agent.core.round_decisions import RoundDecisions, StartingPoint, TaskState
from edge_agent.core.triggers import Condition, Trigger
from edge_agent.core.version_choice import KnownVersion, NotAskedError, VersionUnavailableError
from edge_agent.shell.connection.link import Link, LinkDownError
from edge_agent.shell.host import machine
from edge_agent.shell.host.meter import Meter
from edge_agent.shell.learning.round_training import RoundFailedError, RoundTraining
from edge_agent.shell.learning.stoppable import StoppedError, run_unless
from edge_agent.shell.samples.sample_store import SampleStore
from edge_agent.shell.splitting.helped_round import NoHelperError
from edge_agent.shell.storage.device_database import DeviceDatabase
from edge_agent.shell.versions.manifest_listener import ManifestListener
from edge_agent.shell.versions.version_follower import ReadyVersion, VersionFollower
from edge_agent.worker.contract import GossipRound, Progress, Withheld
from fleet_host import seal
from fleet_host.log_lines import log_line
from fleet_host.rate_limit import RateLimit
from fleet_protocol.kinds import Receipt
from fleet_protocol.limits import MIB
from fleet_protocol.remedies import STEADIER_TRAINING

logger = logging.getLogger(__name__)

SAY_WAITING_SECONDS = 86_400.0
"""That too few samples have come for a round is said once in this time, of each task."""
MAX_REASONS_SAID = 16
"""Why a device has no part in a round now, over all tasks, within `recheck_seconds`."""


class Rounds:
    """The training side of an agent: one round at a time, over all its tasks."""

    def __init__(
        self,
        configuration: AgentConfiguration,
        database: DeviceDatabase,
        samples: SampleStore,
        versions: VersionFollower,
        training: RoundTraining,
        *,
        spooled: Callable[[], None],
        link: Link,
        manifests: ManifestListener,
    ) -> None:
        """`spooled` is called after a round whose payloads wait in the outbox."""
        self._manifests = manifests
        self._configuration = configuration
        self._tasks = [task.name for task in configuration.tasks]
        self._database = database
        self._samples = samples
        self._versions = versions
        self._training = training
        self._spooled = spooled
        self._link = link
        self._meter = Meter(
            database,
            lambda: link.transferred,
            lambda: training.spent_milliseconds,
            keeps=configuration.guards.has_budget,
        )
        self._wake = asyncio.Event()
        self._not_selected = RateLimit(configuration.guards.recheck_seconds, MAX_REASONS_SAID)
        self._refused_tasks = RateLimit(SAY_WAITING_SECONDS, MAX_REASONS_SAID)
        self._rechecks: dict[str, asyncio.TimerHandle] = {}
        self._waits_for_own: dict[str, asyncio.TimerHandle] = {}
        self._said_waiting = RateLimit(SAY_WAITING_SECONDS, len(self._tasks))
        self._said_unreadable: dict[str, str] = {}
        self.withheld = 0
        """Rounds since the start that sent nothing, as they made validation samples worse."""
        triggers = {task.name: Trigger(task.trigger, self._count_new(task.name)) for task in configuration.tasks}
        self._decisions = RoundDecisions(configuration.guards, triggers)
        for task in self._tasks:
            self._follow_version(task)
        if not database.is_enrolled():
            self._decisions.not_enrolled("the coordinator has not answered yet")

    @property
    def state(self) -> State:
        """What the training side is doing."""
        return self._decisions.state

    @property
    def task_states(self) -> dict[str, TaskState]:
        """Per task, what the device does for it and why."""
        now = self._now()
        return {task: self._decisions.task_state(task, self._database.known_version(task), now) for task in self._tasks}

    @property
    def progress(self) -> Progress | None:
        """Progress of the worker's round; None between rounds."""
        return self._training.progress

    @property
    def new_samples(self) -> dict[str, int]:
        """Per task, samples that no round has seen."""
        return {task: self._decisions.new_samples(task) for task in self._tasks}

    def sample_arrived(self, task: str) -> None:
        """Count a sample, and wake up if it fires a trigger."""
        if self._decisions.samples_arrived(task):
            self._wake.set()

    def samples_changed(self, task: str) -> None:
        """Stored samples were corrected or forgotten."""
        self._decisions.samples_recounted(task, self._count_new(task))
        self._wake.set()

    def manifest_changed(self, task: str) -> None:
        """A manifest has brought something new."""
        self._follow_version(task)
        self.retry_deferred_trigger()
        self._say_waiting(task)

    def manifest_heard(self, task: str) -> None:
        """The newest known version was named by a manifest that this agent reads."""
        if not self._versions.why_unreadable(task):
            self._decisions.readable(task)
            self._wake.set()

    def not_readable(self, task: str, why: str) -> None:
        """The task's bundle or manifest is of a format that this agent does not read: it waits for another."""
        self._decisions.not_readable(task, why)
        if self._said_unreadable.get(task) != why:
            self._said_unreadable[task] = why
            logger.error(log_line("task_not_readable", task=task, reason=why, remedy="update edgeflock on this device"))

    def note(self, task: str, condition: Condition) -> None:
        """An event on this device may wake the agent."""
        self._decisions.note(task, condition)
        self._wake.set()

    def invited(self, task: str) -> None:
        """A round of the task asks for the version that is held."""
        self.note(task, Condition.INVITED)

    def train_now(self, tasks: Sequence[str] = ()) -> None:
        """Somebody asks for a round of these tasks, or of all; guards and the life cycle still apply."""
        for task in tasks or self._tasks:
            self.note(task, Condition.ASKED)

    def enrolled(self) -> None:
        """The coordinator accepts this device."""
        self._decisions.enrolled()
        self.retry_deferred_trigger()

    def not_enrolled(self, why: str) -> None:
        """It does not, or not yet: nothing is trained, as nothing would be taken."""
        self._decisions.not_enrolled(why)

    def roster_changed(self, task: str) -> None:
        """Who learns the task without a coordinator is known, or others do."""
        self._decisions.retry_deferred_trigger(task)
        self._wake.set()

    def retry_deferred_trigger(self) -> None:
        """Something changed that may allow deferred rounds: a connection, a version, a receipt."""
        for task in self._tasks:
            self._decisions.retry_deferred_trigger(task)
        self._wake.set()

    def answered(self, row: OutboxRow, receipt: Receipt) -> None:
        """A payload has its receipt, which may say something of the newest version."""
        newest = self._database.known_version(row.task)
        after = self._decisions.answered(row, receipt, newest, self._now())
        self._compare_versions(row.task)
        self._wake.set()
        if after.is_outdated:
            logger.warning(
                log_line(
                    "version_outdated",
                    task=row.task,
                    version=row.base_version,
                    reason=receipt.reason,
                    remedy="waiting for a newer version",
                )
            )
        if after.wait_seconds is not None:
            logger.warning(
                log_line(
                    "update_too_large",
                    task=row.task,
                    version=row.base_version,
                    retry_in_s=round(after.wait_seconds),
                    remedy=f"it is dropped; if it repeats: {STEADIER_TRAINING}",
                )
            )
            self._retry_in(row.task, after.wait_seconds)

    def waits_for_version(self, task: str) -> bool:
        """Whether the device has to hear of every version of a task now."""
        description = self._versions.description(task)
        if description is not None and description.scaling.is_awaited:
            return True
        return self._decisions.waits_for_version(task, self._database.known_version(task), self._now())

    def refused(self, task: str) -> str | None:
        """Why a guard would refuse a round now."""
        return refusal(self._configuration.guards, self._readings(task))

    async def run(self) -> None:
        """Sleep, wake, train; until cancelled."""
        self._wake.set()
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                for task in self._tasks:
                    while self._is_due(task) and await self._run_round(task):
                        pass
                self._manifests.look_again()
        finally:
            for timer in self._waits_for_own.values():
                timer.cancel()
            await self._training.end()

    def _say_waiting(self, task: str) -> None:
        """A device that gets too few samples must not be silent, as if there were nothing to train."""
        missing = self._decisions.missing_samples(task)
        if missing and self._said_waiting.allows(task, self._now()):
            logger.info(
                log_line(
                    "waiting_for_samples",
                    task=task,
                    stored=self._samples.count(task),
                    missing=missing,
                    remedy="none if more come; else lower new_samples of its trigger, and [guards] minimum_samples",
                )
            )

    def _is_due(self, task: str) -> bool:
        return self._decisions.is_due(task, self._database.known_version(task), self._now())

    async def _run_round(self, task: str) -> bool:
        """Run one round; returns whether it was ended, with payloads or without."""
        if refused := self._decisions.begin(task, self._readings(task)):
            logger.warning(log_line("guard_refused", task=task, reason=refused))
            return self._retry_in(task)
        if not self._training.needs_no_manifest(task):
            await self._manifests.take(task)
        newest = self._database.known_version(task)
        try:
            version = await self._versions.ready_version(task)
        except NotAskedError as error:
            self._decisions.version_unavailable(task, str(error))
            # An outsider may replay the manifests of one version by turns: each of them asks other devices.
            if self._not_selected.allows((task, str(error)), self._now()):
                logger.info(log_line("not_selected", task=task, reason=error))
            return self._retry_in(task)
        except (VersionUnavailableError, LinkDownError) as error:
            self._decisions.version_unavailable(task, str(error))
            logger.warning(log_line("version_unavailable", task=task, reason=error))
            return self._retry_in(task)
        if not (
            self._may_learn(task, version)
            and self._has_cohort(task, version)
            and self._has_turn(task, version)
            and self._samples_suffice(task, version, newest)
        ):
            return False
        if refused := self._decisions.version_ready(task, self._starting_point(task, version)):
            logger.warning(log_line("divergence_expected", task=task, reason=refused))
            return self._retry_in(task)
        return await self._train(task, version, newest)

    def _may_learn(self, task: str, version: ReadyVersion) -> bool:
        """Whether the task promises what the owner of this device demands, and the device has what it takes."""
        missing = self._training.what_is_missing(version.description)
        if (refused := missing or self._training.why_refused(version.description)) is None:
            return True
        self._decisions.version_unavailable(task, refused)
        if self._refused_tasks.allows((task, version.bundle), self._now()):
            promised = "ask whoever runs the fleet for a task that promises it, or change [privacy] of agent.toml"
            remedy = seal.REMEDY if missing else promised
            logger.warning(log_line("task_refused", task=task, reason=refused, remedy=remedy))
        return self._retry_in(task)

    def _has_cohort(self, task: str, version: ReadyVersion) -> bool:
        """Whether what comes of a round can be summed with others', where the task asks for that."""
        if (why := self._training.why_no_cohort(version.description)) is None:
            return True
        self._decisions.version_unavailable(task, why)
        if self._not_selected.allows((task, why), self._now()):
            logger.info(log_line("no_cohort", task=task, reason=why))
        return self._retry_in(task)

    def _has_turn(self, task: str, version: ReadyVersion) -> bool:
        """Whether an update would count now, where the task takes few of one device."""
        if (why := self._training.why_not_yet(version)) is None:
            return True
        self._decisions.version_unavailable(task, why)
        said = self._refused_tasks if version.description.gossip else self._not_selected
        if said.allows((task, why), self._now()):
            logger.info(log_line("not_yet", task=task, reason=why))
        return self._retry_in(task)

    def _samples_suffice(self, task: str, version: ReadyVersion, trained_from: KnownVersion | None) -> bool:
        """Whether trigger and guards still want a round when samples that do not fit the version are gone."""
        try:
            dropped = self._training.drop_unfit_samples(version.description)
        except (sqlite3.Error, OSError) as error:
            return self._note_failure(task, trained_from, error)
        if not dropped:
            return True
        if refused := self._decisions.samples_dropped(task, self._count_new(task), self._readings(task)):
            logger.warning(log_line("guard_refused", task=task, reason=refused))
            return self._retry_in(task)
        return True

    async def _train(self, task: str, version: ReadyVersion, trained_from: KnownVersion | None) -> bool:
        began, numbered_before = self._now(), self._database.highest_number
        try:
            with self._meter.round():
                withheld = await run_unless(
                    self._training.run(task, version),
                    lambda: self._decisions.why_stop(self._readings(task)),
                    every_seconds=self._configuration.guards.recheck_seconds,
                )
        except StoppedError as error:
            self._decisions.stopped(task, str(error))
            logger.warning(log_line("round_stopped", task=task, reason=error))
            return self._retry_in(task)
        except RoundFailedError as error:
            if error.diverged:
                self._decisions.diverged(task, self._starting_point(task, version))
            return self._note_failure(task, None if error.mended else trained_from, error)
        except (sqlite3.Error, OSError) as error:
            return self._note_failure(task, trained_from, error)
        except (VersionUnavailableError, LinkDownError) as error:
            return self._note_failure(task, None, error)
        except NoHelperError as error:
            return self._note_failure(task, None, error, error.retry_seconds)
        self._decisions.ended(task, self._count_new(task), _what_came_of(withheld))
        if withheld is None and (held := self._database.held_version(task)) is not None:
            self._decisions.update_spooled(task, held, numbered_before, self._now(), self._now() - began)
        self._compare_versions(task)
        if withheld is None:
            self._spooled()
        elif isinstance(withheld, Withheld):
            self._note_withheld(task, version, withheld)
        self._versions.forget_unused(self._tasks)
        return True

    def _note_withheld(self, task: str, version: ReadyVersion, withheld: Withheld) -> None:
        if withheld.why == "spent":
            logger.info(log_line("samples_spent", task=task, reason=withheld.words))
            return
        self.withheld += 1
        logger.info(log_line("update_withheld", task=task, version=version.number, reason=withheld.words))

    def _note_failure(
        self, task: str, version: KnownVersion | None, error: Exception, shortest_wait: float = 0.0
    ) -> bool:
        """`version` is to blame, unless it is None. The task is tried again after `shortest_wait` at the earliest."""
        wait = max(shortest_wait, self._decisions.failed(task, version, self._now(), str(error)))
        logger.warning(log_line("round_failed", task=task, reason=error, retry_in_s=round(wait)))
        return self._retry_in(task, wait)

    def _retry_in(self, task: str, seconds: float | None = None) -> bool:
        """Try the task again then, or earlier if something changes that allows it. False: no round was ended."""
        seconds = seconds or self._configuration.guards.recheck_seconds
        if last := self._rechecks.pop(task, None):
            last.cancel()
        self._rechecks[task] = asyncio.get_running_loop().call_later(seconds, self._retry, task)
        return False

    def _retry(self, task: str) -> None:
        self._decisions.retry_deferred_trigger(task)
        self._wake.set()

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _starting_point(self, task: str, version: ReadyVersion) -> StartingPoint:
        return StartingPoint(version.number, version.bundle, self._samples.newest(task), version.generation)

    def _readings(self, task: str) -> Readings:
        return machine.readings(
            self._configuration.guards,
            self._configuration.state_folder,
            stored_samples=self._samples.count(task),
            waiting_updates=self._database.waiting(),
            sent_mib=self._database.sent_bytes() / MIB,
            connected=self._link.connected,
            used=self._meter.used(),
        )

    def _follow_version(self, task: str) -> None:
        known = self._database.known_version(task)
        has_ended = known is not None and known.removed
        self._decisions.manifest_changed(task, self._count_new(task), has_ended=has_ended)
        self._compare_versions(task)

    def _compare_versions(self, task: str) -> None:
        held, known = self._database.held_version(task), self._database.known_version(task)
        until = self._decisions.version_known(task, held, known, self._now())
        if until is not None:
            if (last := self._waits_for_own.get(task)) is not None:
                last.cancel()
            self._waits_for_own[task] = asyncio.get_running_loop().call_at(until, self._own_update_is_late, task)

    def _own_update_is_late(self, task: str) -> None:
        self._compare_versions(task)
        self._wake.set()

    def _count_new(self, task: str) -> int:
        return self._samples.count_after(task, self._database.trained_through(task))


def _what_came_of(ended: Withheld | GossipRound | None) -> str:
    """Of a round, in words."""
    if isinstance(ended, GossipRound):
        told = (
            "its neighbours are told" if ended.told else "its neighbours are told nothing, as it has moved too little"
        )
        return f"{ended.withheld}; {told}" if ended.withheld else told
    return ended.words if ended else "its update waits or is sent"
