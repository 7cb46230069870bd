"""Has new samples looked at, where a trigger waits for a worse model or for drift: by a child, now and then."""

import asyncio
import logging
import socket
import sqlite3
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from edge_agent.core.lifecycle import IN_A_ROUND, State
from edge_agent.core.triggers import Condition, TriggerSettings, found_by
from edge_agent.core.version_choice import VersionUnavailableError
from edge_agent.shell.connection.link import LinkDownError
from edge_agent.shell.versions.version_follower import VersionFollower
from edge_agent.worker.child import Program, end_child, start_child
from edge_agent.worker.look import Answer, LookFailure, LookJob, looking_files, read_answer, write_job
from edge_agent.worker.settings import WorkerSettings
from fleet_host.log_lines import log_line
from fleet_protocol.task_description import TaskDescription

logger = logging.getLogger(__name__)

COMMAND = (sys.executable, "-P", "-m", "edge_agent.training.look")


_EXPECTED_ERRORS = (VersionUnavailableError, LinkDownError, OSError, TimeoutError, sqlite3.Error, msgspec.DecodeError)


class SampleLooks:
    """One look at a time, after every `look_samples` new ones of a task, while no round runs.

    `note` is told which conditions a look has met; `refused` says why the device may not compute now. `judge` takes
    samples in that came before the task's schema.
    """

    def __init__(
        self,
        triggers: Mapping[str, TriggerSettings],
        settings: WorkerSettings,
        store: Path,
        versions: VersionFollower,
        *,
        state: Callable[[], State],
        refused: Callable[[str], str | None],
        judge: Callable[[TaskDescription], object],
        note: Callable[[str, Condition], None],
    ) -> None:
        self._triggers = {task: trigger for task, trigger in triggers.items() if trigger.looks}
        self._settings = settings
        self._store = store
        self._versions = versions
        self._state = state
        self._refused = refused
        self._judge = judge
        self._note = note
        self._new = dict.fromkeys(self._triggers, 0)
        self._wake = asyncio.Event()

    def sample_arrived(self, task: str) -> None:
        """Count a sample."""
        if task in self._new:
            self._new[task] += 1
            if self._new[task] >= self._triggers[task].look_samples:
                self._wake.set()

    async def run(self) -> None:
        """Look when it is time; until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            for task, trigger in self._triggers.items():
                if self._new[task] >= trigger.look_samples and self._may_look(task):
                    self._new[task] = 0
                    await self._look(task, trigger)

    def _may_look(self, task: str) -> bool:
        """Where it may not, the next sample asks again."""
        return self._state() not in IN_A_ROUND and self._refused(task) is None

    async def _look(self, task: str, trigger: TriggerSettings) -> None:
        try:
            answer = await self._ask(task, trigger.look_samples)
        except _EXPECTED_ERRORS as error:
            answer = LookFailure(f"{type(error).__name__}: {error}")
        if isinstance(answer, LookFailure):
            logger.info(log_line("samples_not_compared", task=task, reason=answer.error))
            return
        found = found_by(trigger, answer.earlier_loss, answer.newest_loss, answer.standard_error, answer.shift)
        logger.info(
            log_line(
                "samples_compared",
                task=task,
                earlier=answer.earlier,
                newest=trigger.look_samples,
                loss=f"{answer.earlier_loss:.4g} to {answer.newest_loss:.4g}",
                shift=f"{answer.shift:.3g}",
                found=", ".join(found) or "nothing",
            )
        )
        for condition in found:
            self._note(task, condition)

    async def _ask(self, task: str, newest: int) -> Answer:
        version = await self._versions.version_to_use(task, looking_files)
        if version.description.sample_privacy is not None:
            return LookFailure("what is found would tell of samples without noise, and [privacy.samples] forbids that")
        self._judge(version.description)
        settings = self._settings
        job = LookJob(
            version.description,
            {name: str(path) for name, path in version.files.items()},
            str(version.weights),
            str(self._store),
            newest,
            threads=settings.threads,
            nice=settings.nice,
            memory_limit_mib=settings.memory_limit_mib,
            cpu_limit_seconds=settings.cpu_limit_seconds,
            cluster=version.cluster,
            own=version.own,
        )
        child = await start_child(COMMAND, Program.LOOK)
        try:
            async with asyncio.timeout(settings.time_limit_seconds):
                said = await _exchange(child.connection, write_job(job))
        finally:
            await end_child(child.process)
        return read_answer(said)


async def _exchange(connection: socket.socket, asked: bytes) -> bytes:
    """Send everything there is to send; returns everything that comes back."""
    answers, questions = await asyncio.open_connection(sock=connection)
    try:
        questions.write(asked)
        questions.write_eof()
        return await answers.read()
    finally:
        questions.close()
