"""Makes what devices ask for and is not in memory, on a thread beside intake and for a bounded share of the time.

An update never waits for it. docs/decisions/files-made-beside-intake.md says why a thread.
"""

import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass

from broker_coordinator.distribution.chunk_queue import Wanted
from fleet_protocol.limits import MIB

MAX_READY_BYTES = 64 * MIB
"""Made and kept in memory; the largest single file is kept whatever it takes."""

MAX_WAITING_OF_DEVICE = 2
"""Files that wait because one device was the first to ask for them. A device fetches one after the other."""

MAX_WAITING = 1_000
"""Files that wait to be made, for all devices."""

SHARE = 0.25
"""Of the time, that may go into making files: the rest of the core is for updates."""

POLL_SECONDS = 0.02
"""How often to look whether a file is made."""


@dataclass(frozen=True, slots=True)
class Made:
    """What became of a file: `content` is None where there is no such file, or `error` kept it from being made."""

    wanted: Wanted
    content: bytes | None
    error: Exception | None
    seconds: float


class Preparation:
    """`make` runs on `executor`, one call at a time. Times are seconds on any one clock."""

    def __init__(self, make: Callable[[Wanted], bytes | None], executor: Executor) -> None:
        self._make = make
        self._executor = executor
        self._ready: OrderedDict[Wanted, bytes] = OrderedDict()
        self._ready_bytes = 0
        self._waiting: OrderedDict[Wanted, str] = OrderedDict()
        self._waiting_of = Counter[str]()
        self._running: tuple[Wanted, Future[Made]] | None = None
        self._look_at = 0.0

    def find(self, wanted: Wanted) -> bytes | None:
        """What is made and still in memory."""
        return self._ready.get(wanted)

    def ask(self, wanted: Wanted, device: str) -> bool:
        """Have a file made, unless it is about to be; False where the device, or all together, must wait for others."""
        if wanted in self._waiting or (self._running is not None and self._running[0] == wanted):
            return True
        if self._waiting_of[device] >= MAX_WAITING_OF_DEVICE or len(self._waiting) >= MAX_WAITING:
            return False
        self._waiting[wanted] = device
        self._waiting_of[device] += 1
        return True

    def collect(self, now: float) -> Made | None:
        """What was made since the last call, if anything; begins with the next file."""
        made = self._take_made(now)
        if self._running is None and self._waiting and now >= self._look_at:
            wanted, device = self._waiting.popitem(last=False)
            self._waiting_of -= Counter([device])  # which leaves no zeros
            self._running = wanted, self._executor.submit(_timed, self._make, wanted)
            self._look_at = now + POLL_SECONDS
        return made

    def next_due(self) -> float | None:
        """When to call `collect` next, or None."""
        return self._look_at if self._running is not None or self._waiting else None

    def _take_made(self, now: float) -> Made | None:
        if self._running is None:
            return None
        if not self._running[1].done():
            self._look_at = now + POLL_SECONDS
            return None
        made = self._running[1].result()
        self._running = None
        self._look_at = now + made.seconds * (1 / SHARE - 1)
        if made.content is not None:
            self._keep(made.wanted, made.content)
        return made

    def _keep(self, wanted: Wanted, content: bytes) -> None:
        self._ready[wanted] = content
        self._ready_bytes += len(content)
        while self._ready_bytes > MAX_READY_BYTES and len(self._ready) > 1:
            self._ready_bytes -= len(self._ready.popitem(last=False)[1])


def _timed(make: Callable[[Wanted], bytes | None], wanted: Wanted) -> Made:
    begun = time.perf_counter()
    try:
        return Made(wanted, make(wanted), None, time.perf_counter() - begun)
    except Exception as error:  # whoever takes it says so
        return Made(wanted, None, error, time.perf_counter() - begun)
