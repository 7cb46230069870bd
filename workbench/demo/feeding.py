"""Delivers samples to a fleet, and watches it until it has learned from all of them."""

import asyncio
import contextlib
from collections.abc import Callable

from workbench.demo.monitor import FleetMonitor, Snapshot

WATCH_SECONDS = 0.5
NOBODY: frozenset[str] = frozenset()


async def feed(
    monitor: FleetMonitor,
    show: Callable[[Snapshot], None],
    stopped: asyncio.Event,
    *,
    until_seconds: float,
    check: Callable[[], None],
    absent: Callable[[], frozenset[str]] = lambda: NOBODY,
    more_to_come: Callable[[], bool] = lambda: False,
) -> None:
    """Deliver until all samples are delivered and trained on, the run's clock says `until_seconds`, or it is stopped.

    `check` raises what ends the run. Nobody waits for devices that are `absent`, by name, and the run goes on while
    there is `more_to_come`.
    """
    feeding = {
        device.name: asyncio.create_task(sensor.drip())
        for device, sensor in zip(monitor.files.devices, monitor.sensors, strict=True)
    }
    try:
        while not stopped.is_set() and monitor.elapsed_seconds < until_seconds:
            check()
            await monitor.refresh()
            show(monitor.snapshot())
            fed = all(task.done() for name, task in feeding.items() if name not in absent())
            if fed and monitor.is_quiet(absent()) and not more_to_come():
                break
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stopped.wait(), WATCH_SECONDS)
    finally:
        for task in feeding.values():
            task.cancel()
        await asyncio.gather(*feeding.values(), return_exceptions=True)
    for task in feeding.values():
        if not task.cancelled():
            task.result()
