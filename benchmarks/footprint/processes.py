"""Processes as the kernel counts them: memory, processor time and context switches of one and its children."""

import contextlib
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec
import psutil

from fleet_host.child_process import bound

MB = 1_000_000
DEADLINE_SECONDS = 120.0
LOOK_SECONDS = 0.005


class Idle(msgspec.Struct):
    """One process and all its children while nothing happens."""

    idle_rss_mb: float
    idle_private_mb: float
    idle_cpu_seconds_per_minute: float
    idle_context_switches_per_minute: float
    idle_bytes_per_minute: float


@contextlib.contextmanager
def running(command: Sequence[str], log: Path, environment: dict[str, str] | None = None) -> Iterator[psutil.Process]:
    """A program, ended with the block and killed with this process."""
    with log.open("ab") as file:
        process = subprocess.Popen(
            bound(list(command)), stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=environment
        )
    try:
        yield psutil.Process(process.pid)
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def until(holds: Callable[[], object], what: str) -> None:
    """Wait for it.

    Raises:
        TimeoutError: it does not come.
    """
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {DEADLINE_SECONDS:g} s: {what}")
        time.sleep(LOOK_SECONDS)


def family(process: psutil.Process) -> list[psutil.Process]:
    """It and its children."""
    return [process, *process.children(recursive=True)]


def memory_mb(process: psutil.Process) -> tuple[float, float]:
    """Resident and private, of it and its children."""
    found = [each.memory_full_info() for each in family(process)]
    return sum(each.rss for each in found) / MB, sum(each.uss for each in found) / MB


def idle(process: psutil.Process, seconds: float, transferred: Callable[[], int]) -> Idle:
    """Look on for so long; `transferred` counts the bytes that have passed so far."""
    before = _processor_seconds(process), _switches(process), transferred()
    time.sleep(seconds)
    after = _processor_seconds(process), _switches(process), transferred()
    cpu, switches, size = ((later - earlier) * 60 / seconds for earlier, later in zip(before, after, strict=True))
    rss, private = memory_mb(process)
    return Idle(rss, private, cpu, switches, size)


def _processor_seconds(process: psutil.Process) -> float:
    return sum(sum(each.cpu_times()[:2]) for each in family(process))


def _switches(process: psutil.Process) -> int:
    """Voluntary and forced ones, of all threads."""
    total = 0
    for each in family(process):
        for status in Path(f"/proc/{each.pid}/task").glob("*/status"):
            lines = (line.split(":") for line in status.read_text().splitlines())
            total += sum(int(value) for name, value in lines if name.endswith("ctxt_switches"))
    return total
