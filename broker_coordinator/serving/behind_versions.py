"""Runs a verb behind versions that are due, in a child process, one at a time; intake never waits for it."""

import json
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fleet_host.child_process import bound

NICENESS = 10
MAX_ERROR_CHARACTERS = 300
LONGEST_SECONDS = 900.0
"""What takes longer is ended; the next version that is due, perhaps another task's, has its turn."""


@dataclass(frozen=True, slots=True)
class VersionVerb:
    """A verb of broker-coordinator that prints one JSON object: `words` has what stands behind its noun for a task and
    a version. `is_due` is asked in a thread of its own. There `done` hears of what was printed, and `failed` of a task
    and a version of which nothing was, and why.
    """

    noun: str
    words: Callable[[str, int], Sequence[str]]
    is_due: Callable[[str, int], bool]
    done: Callable[[Mapping[str, object]], None]
    failed: Callable[[str, int, str], None]


class BehindVersions:
    """Of a task whose versions come faster than the verb ends, the newest due one waits, the others are skipped."""

    def __init__(self, configuration: Path, verb: VersionVerb, longest_seconds: float = LONGEST_SECONDS) -> None:
        program = [sys.executable, "-P", "-m", "broker_coordinator.cli"]
        self._command = [*program, verb.noun, "--config", str(configuration)]
        self._verb = verb
        self._longest_seconds = longest_seconds
        self._due: queue.SimpleQueue[tuple[str, int] | None] = queue.SimpleQueue()
        self._child: subprocess.Popen[str] | None = None
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=f"{verb.noun} behind versions", daemon=True)
        self._thread.start()

    def note_version(self, task: str, number: int) -> None:
        """A version is made; returns at once."""
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
                if due is not None and self._verb.is_due(*due):
                    waiting |= dict([due])
                continue
            task = next(iter(waiting))
            self._run_child(task, waiting.pop(task))

    def _run_child(self, task: str, number: int) -> None:
        # Where a sandbox forbids it, as systemd's @resources does, nice(1) says so and goes on.
        command = ["nice", "-n", str(NICENESS), *self._command, *self._verb.words(task, number), "--json"]
        with subprocess.Popen(bound(command), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as self._child:
            try:
                output, errors = self._child.communicate(timeout=self._longest_seconds)
            except subprocess.TimeoutExpired:
                self._child.kill()
                output, _ = self._child.communicate()
                errors = f"it passed its time limit of {self._longest_seconds:g} s and was killed"
        if self._child.returncode == 0:
            self._verb.done(json.loads(output))
        elif not self._stopping:
            self._verb.failed(task, number, errors.strip()[-MAX_ERROR_CHARACTERS:])
