"""The last version of a demo in which each device speaks once: what waits for more is aggregated without them."""

import asyncio
import contextlib

from workbench.demo.feeding import WATCH_SECONDS
from workbench.demo.fleet_files import CommandFailedError, run_command
from workbench.demo.monitor import FleetMonitor

LONGEST_WAIT_SECONDS = 10.0


async def until_all_is_in_a_version(monitor: FleetMonitor) -> None:
    """Ask for a version of what waits, as an operator does, and wait for it. A coordinator that is killed meanwhile
    makes it once it is back; the run ends without it where that takes longer.
    """
    files = monitor.files
    if not monitor.waits_for_a_version:
        return
    with contextlib.suppress(CommandFailedError):  # it was made this moment: nothing waits any more
        await run_command(
            "broker_coordinator.cli", "tasks", "aggregate", "--config", str(files.coordinator_configuration), files.task
        )
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LONGEST_WAIT_SECONDS):
            while monitor.waits_for_a_version:
                await asyncio.sleep(WATCH_SECONDS)
                await monitor.refresh()
