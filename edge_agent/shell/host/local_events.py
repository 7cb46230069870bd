"""What happens on the device itself and may wake its agent: a time of a cron line has come, a file has been made."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

from cronsim import CronSim

from edge_agent.core.triggers import Condition, TriggerSettings
from fleet_host.log_lines import log_line
from fleet_host.rate_limit import RateLimit

logger = logging.getLogger(__name__)

LONGEST_SLEEP_SECONDS = 3600.0
"""A schedule looks at the clock at least so often: somebody may set it."""
WAKE_FILE_SECONDS = 60.0
"""Between two looks for a file."""
SAY_FILE_STAYS_SECONDS = 86_400.0
"""That a file can't be deleted is said once in this time."""


def seconds_until(line: str, now: datetime) -> float:
    """How long until the next time of a cron line, at most `LONGEST_SLEEP_SECONDS`."""
    return min(LONGEST_SLEEP_SECONDS, (next(CronSim(line, now)) - now).total_seconds())


def has_come(line: str, since: datetime, now: datetime) -> bool:
    """Whether a time of a cron line lies after `since`, and not after `now`. A clock that was set back has none."""
    return next(CronSim(line, since)) <= now


class LocalEvents:
    """Calls `note` with a task and what has happened. Where no condition needs it, it sets no timer."""

    def __init__(
        self,
        triggers: Sequence[tuple[str, TriggerSettings]],
        note: Callable[[str, Condition], None],
        *,
        now: Callable[[], datetime] = datetime.now,
    ) -> None:
        self._triggers = triggers
        self._note = note
        self._now = now

    async def run(self) -> None:
        """Until cancelled, or at once where nothing is to be waited for."""
        async with asyncio.TaskGroup() as group:
            for task, settings in self._triggers:
                if settings.schedule is not None:
                    group.create_task(self._keep_schedule(task, settings.schedule))
                if settings.wake_file is not None:
                    group.create_task(self._watch_for(task, Path(settings.wake_file)))

    async def _keep_schedule(self, task: str, line: str) -> None:
        seen = self._now()
        while True:
            await asyncio.sleep(seconds_until(line, seen))
            now = self._now()
            if has_come(line, seen, now):
                self._note(task, Condition.SCHEDULE)
            seen = now

    async def _watch_for(self, task: str, file: Path) -> None:
        said = RateLimit(SAY_FILE_STAYS_SECONDS, 1)
        while True:
            try:
                if _take(file):
                    self._note(task, Condition.WAKE_FILE)
            except OSError as error:
                if said.allows(task, asyncio.get_running_loop().time()):
                    remedy = "let the agent's account delete it, and enter its folder; it wakes nothing until then"
                    logger.warning(log_line("wake_file_stays", task=task, file=str(file), error=error, remedy=remedy))
            await asyncio.sleep(WAKE_FILE_SECONDS)


def _take(file: Path) -> bool:
    """Delete the file; whether there was one.

    Raises:
        OSError: there is one that can't be deleted.
    """
    try:
        file.unlink()
    except FileNotFoundError:
        return False
    return True
