"""Measures what trainings and the link use, for the daily budgets; written to the card once a round."""

import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from edge_agent.core.daily_use import DailyUse, calendar_day, running_day
from edge_agent.shell.storage.device_database import DeviceDatabase
from fleet_host.wall_clock import local_time


class Meter:
    """`transferred` tells how many bytes of messages the link has carried since the start, both ways.

    `running` tells how many milliseconds of processor time a child that has not ended has used so far.
    `keeps`: what is used is written to the card, for a budget; without one, that is spared.
    """

    def __init__(
        self, database: DeviceDatabase, transferred: Callable[[], int], running: Callable[[], int], *, keeps: bool
    ) -> None:
        self._database = database
        self._running = running
        self._transferred = transferred
        self._keeps = keeps
        self._use = database.daily_use()
        self._boot = database.boot
        self._started = time.monotonic()
        self._counted_bytes = 0
        self._counted_milliseconds: int | None = None

    def used(self) -> DailyUse:
        """What was used on this local day, what is not written yet included: so far, of a round that runs."""
        transferred = self._transferred()
        fresh, self._counted_bytes = transferred - self._counted_bytes, transferred
        self._use = self._use.and_more(self._day(), cpu_milliseconds=self._fresh_milliseconds(), transferred=fresh)
        return self._use

    @contextmanager
    def round(self) -> Iterator[None]:
        """Count what children use within the block, however it ends.

        Raises:
            sqlite3.Error, OSError: the disk.
        """
        self._counted_milliseconds = self._children_milliseconds()
        try:
            yield
        finally:
            used = self.used()
            self._counted_milliseconds = None
            if self._keeps:
                self._database.set_daily_use(used)

    def _fresh_milliseconds(self) -> int:
        """Since the last look; outside of rounds, other children don't count. One that is just ending is seen later."""
        if self._counted_milliseconds is None:
            return 0
        before, self._counted_milliseconds = self._counted_milliseconds, self._children_milliseconds()
        self._counted_milliseconds = max(self._counted_milliseconds, before)
        return self._counted_milliseconds - before

    def _children_milliseconds(self) -> int:
        spent = resource.getrusage(resource.RUSAGE_CHILDREN)
        return round(1000 * (spent.ru_utime + spent.ru_stime)) + self._running()

    def _day(self) -> int:
        now = local_time()
        if now is None:
            return running_day(self._boot, time.monotonic() - self._started)
        return calendar_day(now.tm_year, now.tm_yday)
