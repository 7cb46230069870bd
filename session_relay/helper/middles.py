"""The middles that a helper has: which one serves a session, when it contributes, and how that gets into the outbox."""

import asyncio
import dataclasses
import logging
import sqlite3
from collections.abc import Awaitable
from typing import Any, Protocol

from edge_agent.core.generations import carried_over
from edge_agent.core.norm_memory import divided
from edge_agent.producers import given_back
from edge_agent.shell.learning.round_spool import RoundSpool
from edge_agent.shell.storage.device_database import DeviceDatabase, TaskMemory
from edge_agent.shell.versions.version_follower import ReadyVersion
from edge_agent.worker.contract import TrainingResult
from edge_agent.worker.settings import WorkerSettings
from fleet_host.log_lines import log_line
from fleet_host.rate_limit import RateLimit
from fleet_protocol.cluster_plan import NO_CLUSTER
from fleet_protocol.limits import MAX_PROBLEM_CHARACTERS
from fleet_protocol.sessions.events import Requested, Wanted
from fleet_protocol.split_plan import is_helpers
from session_relay.helper.compute_contract import ComputeFailure, Learned, Seen, StepDone
from session_relay.helper.configuration import HelperSettings
from session_relay.helper.middle import Middle

logger = logging.getLogger(__name__)

MOST_MIDDLES = 8
"""Processes at once: the newest version's of each task, and those whose sessions are not over yet."""
SAY_REFUSED_SECONDS = 60.0
"""Between two log lines on steps of one task that are refused."""
MOST_TASKS_SAID = 64


class Watcher(Protocol):
    """Who hears of what becomes of them."""

    def step_done(self, step: StepDone) -> None:
        """A step is answered."""

    def middle_failed(self, session: bytes, why: str) -> None:
        """A session has lost its middle."""

    def seen(self, version: ReadyVersion, device: str, seen: Seen) -> None:
        """What a block gave on the samples of a device whose session has ended."""

    def version_loaded(self, version: ReadyVersion) -> None:
        """Its weights are in their file, whole."""

    def version_damaged(self, version: ReadyVersion, why: str) -> None:
        """Its weights came packed, and can't be unpacked."""

    def version_not_computed(self, version: ReadyVersion, why: str) -> None:
        """A process has not computed a single step of it, or was stuck in one, and the next one would be too."""

    def spooled(self) -> None:
        """Something waits in the outbox."""


class Middles:
    """One for a version that sessions began with, while there are some; it contributes when one of them ends."""

    def __init__(
        self,
        settings: HelperSettings,
        worker: WorkerSettings,
        database: DeviceDatabase,
        spool: RoundSpool,
        watcher: Watcher,
    ) -> None:
        self._settings = settings
        self._worker = worker
        self._database = database
        self._spool = spool
        self._watcher = watcher
        self._running: dict[Middle, asyncio.Future[None]] = {}
        self._settling: dict[Middle, asyncio.TimerHandle] = {}
        self._of_session: dict[bytes, Middle] = {}
        self._contributing: dict[str, asyncio.Lock] = {}
        self._refusals_said = RateLimit(SAY_REFUSED_SECONDS, MOST_TASKS_SAID)
        self.steps = 0
        """That were answered since the start."""

    def __len__(self) -> int:
        """Processes that run."""
        return len(self._running)

    @property
    def versions(self) -> list[ReadyVersion]:
        """Of the processes that run: those that start yet read their files."""
        return [middle.version for middle in self._running]

    def has_room_for(self, version: ReadyVersion, wanted: Wanted) -> bool:
        """Whether a session of this version can be taken."""
        return self._serving(version_for(version, wanted)) is not None or len(self._running) < MOST_MIDDLES

    def open(self, session: bytes, version: ReadyVersion, wanted: Wanted, device: str) -> None:
        """Serve a session of `device`."""
        asked = version_for(version, wanted)
        middle = self._serving(asked) or self._start(asked)
        middle.join(session, wanted.cut, wanted.samples, device)
        self._of_session[session] = middle

    def ask(self, request: Requested) -> None:
        """A session's device asks for a step. One whose middle has just failed hears so."""
        if middle := self._of_session.get(request.session):
            middle.ask(request.session, request.number, request.message)

    def close(self, session: bytes) -> None:
        """A session is over: its middle contributes soon, as the session's device does."""
        middle = self._of_session.pop(session, None)
        if middle is None:
            return
        middle.leave(session)
        if middle.is_over:
            self._settle(middle)
        elif middle not in self._settling:
            loop = asyncio.get_running_loop()
            due = max(loop.time(), middle.contributed_at + self._settings.settle_seconds)
            self._settling[middle] = loop.call_at(due, self._settle, middle)

    def retire(self, newest: ReadyVersion) -> None:
        """Other versions of the task take no new sessions, and end with theirs."""
        for middle in list(self._running):
            if middle.version.description.task == newest.description.task and not is_same(middle.version, newest):
                middle.takes_sessions = False
                if middle.is_over:
                    self._settle(middle)

    async def end(self) -> None:
        """End every child. What they have learned since their last contribution is lost."""
        for timer in self._settling.values():
            timer.cancel()
        for each in (running := list(self._running.values())):
            each.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def _serving(self, version: ReadyVersion) -> Middle | None:
        now = asyncio.get_running_loop().time()
        for middle in self._running:
            if middle.takes_sessions and is_same(middle.version, version) and middle.version.cluster == version.cluster:
                if now < middle.began_at + self._settings.gather_seconds:
                    return middle
                middle.takes_sessions = False
        return None

    def _start(self, version: ReadyVersion) -> Middle:
        ready, done = self._watcher.version_loaded, self._note_done
        seen = self._watcher.seen
        middle = Middle(version, self._worker, self._settings, ready=ready, done=done, seen=seen)
        unpacks = next((each for each in self._running if each.unpacks and is_same(each.version, version)), None)
        self._running[middle] = asyncio.ensure_future(self._run(middle, unpacks))
        return middle

    def _note_done(self, step: StepDone) -> None:
        self.steps += 1
        middle = self._of_session.get(step.session)
        if step.refused and middle is not None:
            self._note_refused(middle.version, step.refused[:MAX_PROBLEM_CHARACTERS])
        self._watcher.step_done(step)

    def _note_refused(self, version: ReadyVersion, why: str) -> None:
        task = version.description.task
        if self._refusals_said.allows(task, asyncio.get_running_loop().time()):
            remedy = "none if seldom; if every round of every device ends so, export the bundle again"
            logger.warning(log_line("steps_refused", task=task, version=version.number, reason=why, remedy=remedy))

    def _settle(self, middle: Middle) -> None:
        if (timer := self._settling.pop(middle, None)) is not None:
            timer.cancel()
        if not middle.sessions:
            middle.takes_sessions = False
        middle.contributed_at = asyncio.get_running_loop().time()
        middle.due.set()

    async def _run(self, middle: Middle, unpacks: Middle | None) -> None:
        computing = asyncio.ensure_future(_computed(middle, unpacks))
        try:
            while not (middle.is_over and not middle.due.is_set()):
                await _first(middle.due.wait(), computing)
                middle.due.clear()
                if not computing.done():
                    await self._contribute(middle, computing)
                if computing.done():
                    middle.takes_sessions = False
                    self._note_failure(middle, computing.result())
                    return
        finally:
            computing.cancel()
            await asyncio.wait({computing})
            del self._running[middle]
            if (timer := self._settling.pop(middle, None)) is not None:
                timer.cancel()

    async def _contribute(self, middle: Middle, computing: "asyncio.Future[ComputeFailure]") -> None:
        try:
            await self._spool_learned(middle, computing)
        except (sqlite3.Error, OSError) as error:
            self._note_lost(middle, error)

    async def _spool_learned(self, middle: Middle, computing: "asyncio.Future[ComputeFailure]") -> None:
        """Spool what a middle has learned; one contribution of a task after the other, as each takes up what the one
        before has left in the error feedback.
        """
        task = middle.version.description.task
        async with self._contributing.setdefault(task, asyncio.Lock()):
            memory = self._database.memory(task, middle.version.bundle)
            learned = self._ask_for_contribution(middle, memory)
            await _first(learned, computing)
            if learned.done() and isinstance(result := learned.result(), TrainingResult):
                self._spool_result(middle, memory, result)

    def _ask_for_contribution(self, middle: Middle, memory: TaskMemory) -> "asyncio.Future[Learned]":
        description = middle.version.description
        state, returned = carried_over(
            description, middle.version.generation, memory.residual, memory.generation, memory.returned
        )
        _, residual = divided(description.sending, state)
        return middle.contribute(residual, list(given_back(returned).values()), memory.rounds)

    def _spool_result(self, middle: Middle, memory: TaskMemory, result: TrainingResult) -> None:
        self._spool.put(middle.version.description.task, middle.version, memory, result)
        self._watcher.spooled()

    def _note_lost(self, middle: Middle, error: Exception) -> None:
        logger.error(
            log_line(
                "contribution_lost",
                task=middle.version.description.task,
                version=middle.version.number,
                reason=error,
                remedy="make room on the disk of state_folder; what devices have taught of that version is lost",
            )
        )

    def _note_failure(self, middle: Middle, failure: ComputeFailure) -> None:
        version = middle.version
        if failure.is_packed:
            self._watcher.version_damaged(version, failure.error)
        elif failure.is_stuck or not middle.has_answered:
            self._watcher.version_not_computed(version, failure.error)
        logger.error(
            log_line(
                "middle_failed",
                task=version.description.task,
                version=version.number,
                sessions=len(middle.sessions),
                reason=failure.error,
                remedy="its devices open other sessions; if it repeats: raise what `reason` names, or [worker]"
                " memory_limit_mib, or see the lines above",
            )
        )
        for session in list(middle.sessions):
            self._of_session.pop(session, None)
            self._watcher.middle_failed(session, failure.error)


async def _computed(middle: Middle, unpacks: Middle | None) -> ComputeFailure:
    """Let it compute once the one that unpacks the file of the same version's weights, for another cluster, is done."""
    if unpacks is not None:
        await unpacks.has_unpacked.wait()
        middle.start_from_file(whole=unpacks.is_loaded)
    return await middle.run()


async def _first(one: Awaitable[object], other: "asyncio.Future[Any]") -> None:
    """Wait until one of two is done; `other` goes on."""
    waited = asyncio.ensure_future(one)
    try:
        await asyncio.wait({waited, other}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waited.cancel()


def version_for(version: ReadyVersion, wanted: Wanted) -> ReadyVersion:
    """The version as a session needs it: with the copy of the device's cluster, where one of the blocks that its cut
    leaves to the helper has copies. Otherwise sessions of all clusters share what there is.
    """
    task = version.description
    if task.clusters is None or task.split is None:
        return dataclasses.replace(version, cluster=NO_CLUSTER)
    cut = task.split.cut(wanted.cut)
    plan, split = task.clusters, task.split
    copied = any(is_helpers(cut, each.block) and plan.copies(each.name, each.block, split) for each in task.parameters)
    return dataclasses.replace(version, cluster=plan.cluster(wanted.cluster) if copied else NO_CLUSTER)


def is_same(one: ReadyVersion, other: ReadyVersion) -> bool:
    """Whether two are the same version of the same task."""
    return (one.bundle, one.number, one.generation) == (other.bundle, other.number, other.generation)
