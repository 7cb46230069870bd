"""Evaluates every n-th version in a child process, one at a time; intake never waits for it."""

import json
import logging
import queue
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

from fleet_host.child_process import bound
from fleet_host.log_lines import log_line

logger = logging.getLogger(__name__)

NICENESS = 10
MAX_ERROR_CHARACTERS = 300
LONGEST_SECONDS = 900.0
"""A version whose evaluation takes longer is not evaluated; the next one due, perhaps another task's, has its turn."""


class Evaluator:
    """Runs `tasks evaluate` for versions that are due; `every` says how often, by task.

    Of a task whose versions come faster than they are evaluated, the newest one waits, the others are skipped.
    """

    def __init__(self, configuration: Path, every: Mapping[str, int], longest_seconds: float = LONGEST_SECONDS) -> None:
        self._command = [sys.executable, "-P", "-m", "broker_coordinator.cli", "tasks", "--config", str(configuration)]
        self._every = every
        self._longest_seconds = longest_seconds
        self._due: queue.SimpleQueue[tuple[str, int] | None] = queue.SimpleQueue()
        self._child: subprocess.Popen[str] | None = None
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="evaluator", daemon=True)
        self._thread.start()

    def note_version(self, task: str, number: int) -> None:
        """A version is made; returns at once."""
        if task in self._every and number % self._every[task] == 0:
            self._due.put((task, number))

    def stop(self) -> None:
        """End the child and the thread."""
        self._stopping = True
        self._due.put(None)
        if (child := self._child) is not None:
            child.terminate()
        self._thread.join()

    def _run(self) -> None:
        waiting: dict[str, int] = {}
        while not self._stopping:
            if not waiting or not self._due.empty():
                due = self._due.get()
                waiting |= dict([due] if due else [])
                continue
            task = next(iter(waiting))
            self._evaluate(task, waiting.pop(task))

    def _evaluate(self, task: str, number: int) -> None:
        # Where a sandbox forbids it, as systemd's @resources does, nice(1) says so and goes on.
        command = ["nice", "-n", str(NICENESS), *self._command, "evaluate", task, "--version", str(number), "--json"]
        command = bound(command)
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as self._child:
            try:
                output, errors = self._child.communicate(timeout=self._longest_seconds)
            except subprocess.TimeoutExpired:
                self._child.kill()
                output, _ = self._child.communicate()
                errors = f"it passed its time limit of {self._longest_seconds:g} s and was killed"
        if self._child.returncode == 0:
            found = json.loads(output)
            logger.info(log_line("version_evaluated", **{name: found[name] for name in _LOGGED if name in found}))
        elif not self._stopping:
            error = errors.strip()[-MAX_ERROR_CHARACTERS:]
            logger.error(log_line("evaluation_failed", task=task, version=number, error=error))


_LOGGED = ("task", "version", "samples", "loss", "accuracy", "heads")
"""`heads` only where there are several."""
