"""Runs the relay of split learning as a child process while a task has cuts; the coordinator never waits for it."""

import logging
import os
import random
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Final

from sqlalchemy import Engine

from broker_coordinator.storage.change_counters import TASKS, read_change_counters
from broker_coordinator.storage.database import Database, JournalUnavailableError, open_database
from broker_coordinator.storage.task_registry import TaskRegistry
from fleet_host.backoff import delay_seconds
from fleet_host.child_process import bound
from fleet_host.log_lines import log_line
from fleet_protocol.errors import ConfigurationError

MODULE: Final = "session_relay.relay"
"""By its name: the coordinator imports nothing of it."""
LOOK_SECONDS: Final = 1.0
"""Between two looks at whether a task has cuts, and whether the relay runs."""
STABLE_SECONDS: Final = 30.0
"""A relay that ran so long is started again at once."""
LEAVING_SECONDS: Final = 5.0
SILENCE_SECONDS: Final = 60.0
"""Without a sign of life, after which it is killed. It gives one each second from when it serves on, which is soon."""
SIGNS_READ: Final = 4096

logger = logging.getLogger(__name__)


class RelayChild:
    """Starts the relay, and again whenever it has ended, until `stop`. It dies with this process."""

    def __init__(self, configuration: Path, database: Database, silence_seconds: float = SILENCE_SECONDS) -> None:
        self._command = bound([sys.executable, "-P", "-m", MODULE, str(configuration), "--signs"])
        self._silence_seconds = silence_seconds
        self._database = database
        self._engine: Engine | None = None
        self._tasks_mark: int | None = None
        self._is_needed = False
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="relay", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the child and the thread."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        """In one thread, whose end would be the child's too."""
        failures = 0
        while not self._stopping.wait(self._pause(failures)):
            if self._look():
                failures = failures + 1 if self._relay_until_it_ends() < STABLE_SECONDS else 0
        if self._engine is not None:
            self._engine.dispose()

    @staticmethod
    def _pause(failures: int) -> float:
        return LOOK_SECONDS if not failures else LOOK_SECONDS + delay_seconds(failures - 1, random.random())  # noqa: S311

    def _look(self) -> bool:
        """Whether a task that is served has cuts."""
        try:
            self._engine = self._engine or open_database(self._database, read_only=True)
            mark = read_change_counters(self._engine).get(TASKS, 0)
            if mark != self._tasks_mark:
                served = TaskRegistry(self._engine).served().readable
                self._is_needed = any(bundle.description.split for _, bundle in served)
                self._tasks_mark = mark
        except (JournalUnavailableError, ConfigurationError):  # the link says so
            return False
        return self._is_needed

    def _relay_until_it_ends(self) -> float:
        """Seconds that it ran."""
        ran, heard_at = 0.0, time.monotonic()
        with subprocess.Popen(self._command, stdout=subprocess.PIPE) as child:
            logger.info(log_line("relay_started", pid=child.pid))
            while child.poll() is None:
                if _has_given_signs(child):
                    heard_at = time.monotonic()
                elif time.monotonic() > heard_at + self._silence_seconds:
                    logger.error(log_line("relay_stuck", pid=child.pid, silent_s=round(self._silence_seconds)))
                    child.kill()
                if self._stopping.wait(LOOK_SECONDS) or not self._still_needed():
                    child.terminate()
                    try:
                        child.wait(LEAVING_SECONDS)
                    except subprocess.TimeoutExpired:
                        child.kill()
                    return STABLE_SECONDS
                ran += LOOK_SECONDS
        remedy = "none if it comes back; else see the lines above: updates are taken in meanwhile, sessions are not"
        logger.error(log_line("relay_ended", status=child.returncode, remedy=remedy))
        return ran

    def _still_needed(self) -> bool:
        self._look()
        return self._is_needed


def _has_given_signs(child: "subprocess.Popen[bytes]") -> bool:
    """Since the last look."""
    if child.stdout is None:
        return False
    os.set_blocking(child.stdout.fileno(), False)
    try:
        return bool(os.read(child.stdout.fileno(), SIGNS_READ))
    except BlockingIOError:
        return False
