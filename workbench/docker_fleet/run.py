"""One run of a fleet in containers: brings it up, delivers samples to it, hits it with faults, and takes it down."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fleet_protocol.errors import ConfigurationError
from workbench.data.digits import split_digits
from workbench.demo.brokers import BrokerPlan
from workbench.demo.feeding import feed
from workbench.demo.monitor import FleetMonitor, Snapshot
from workbench.demo.run import NEW_SAMPLES, fleet_monitor, on_signals, sensor_paces, until_set
from workbench.docker_fleet.compose import as_yaml, compose
from workbench.docker_fleet.containers import COMPOSE_FILE, LOG_FILE, Containers
from workbench.docker_fleet.devices import PlannedDevice
from workbench.docker_fleet.faults import Fault, not_waited_for
from workbench.docker_fleet.files import own_account, write_fleet
from workbench.docker_fleet.limits import Host, remarks
from workbench.docker_fleet.names import BROKER, COORDINATOR, DISKS, FleetNames
from workbench.report.history import RunHistory

START_SECONDS = 60.0
"""Longest wait for a service of a fleet; a busy machine takes some seconds."""
BROKER_LABEL = "mosquitto in Docker"


@dataclass(frozen=True, slots=True)
class DockerRun:
    """What the user chose, checked. `folder` and `sockets`, whose path is short, are empty, and this run's alone."""

    folder: Path
    sockets: Path
    devices: Sequence[PlannedDevice]
    faults: Sequence[Fault]
    host: Host
    broker_port: int
    deliver_seconds: float
    longest_seconds: float
    seed: int
    keep: bool


async def run_fleet(run: DockerRun, show: Callable[[Snapshot], None]) -> RunHistory:
    """Run a fleet; Ctrl-C and SIGTERM end it early and in order.

    Raises:
        ConfigurationError: with what docker said, or what did not come up.
    """
    stopped = asyncio.Event()
    on_signals(stopped.set)
    monitor, containers = _prepare(run)
    for words in remarks(run.devices, run.host):
        monitor.announce(words)
    async with _brought_down(run, containers):
        return await _run(run, monitor, containers, show, stopped)


def _prepare(run: DockerRun) -> tuple[FleetMonitor, Containers]:
    """Write the fleet's folder; returns who watches the fleet, and its containers, of which none runs yet."""
    generator = np.random.default_rng(run.seed)
    data = split_digits(len(run.devices), generator, "--fleet with devices:")
    sensing_seconds = [run.deliver_seconds * pace for pace in sensor_paces(len(run.devices), generator)]
    files, places = write_fleet(run.folder, run.sockets, run.devices, own_account(), NEW_SAMPLES)
    names = FleetNames.of(run.folder)
    (run.folder / COMPOSE_FILE).write_bytes(as_yaml(compose(names, run.devices, run.host, places, run.broker_port)))
    broker = BrokerPlan(BROKER_LABEL, "127.0.0.1", run.broker_port, "5", None)
    monitor = fleet_monitor(files, data, sensing_seconds, places.bundle, broker)
    return monitor, Containers(run.folder, names, run.devices, monitor.announce)


@asynccontextmanager
async def _brought_down(run: DockerRun, containers: Containers) -> AsyncIterator[None]:
    """Whatever happens, no container is left, unless the fleet is to stay."""
    try:
        yield
    finally:
        await containers.write_logs()
        if not run.keep:
            await containers.down()


async def _run(
    run: DockerRun,
    monitor: FleetMonitor,
    containers: Containers,
    show: Callable[[Snapshot], None],
    stopped: asyncio.Event,
) -> RunHistory:
    observing = asyncio.create_task(monitor.observer.run())
    try:
        await _bring_up(run, monitor, containers, stopped)
        await _learn(run, monitor, containers, show, stopped)
    finally:
        observing.cancel()
    for words in await containers.collect():
        monitor.announce(words)
    monitor.read_journal()
    history = monitor.conclude(seed=run.seed, stopped_early=stopped.is_set())
    if run.keep:
        await containers.start(COORDINATOR)
        await containers.start_devices()
    return history


async def _bring_up(run: DockerRun, monitor: FleetMonitor, containers: Containers, stopped: asyncio.Event) -> None:
    """Start what others need first. Between two steps it may be stopped: a command of docker is not cut short."""
    broker, coordinator = f"no broker answers on 127.0.0.1:{run.broker_port}", "the coordinator announces no task"
    steps: Sequence[Callable[[], Awaitable[None]]] = (
        lambda: containers.start(BROKER, DISKS),
        lambda: until_set(monitor.observer.subscribed, f"{broker}; see {LOG_FILE}", START_SECONDS),
        lambda: containers.start(COORDINATOR),
        lambda: until_set(monitor.observer.manifest_received, f"{coordinator}; see {LOG_FILE}", START_SECONDS),
        containers.find_link_support,
        containers.start_devices,
    )
    for step in steps:
        if stopped.is_set():
            raise ConfigurationError("stopped before the fleet was up")
        await step()


async def _learn(
    run: DockerRun,
    monitor: FleetMonitor,
    containers: Containers,
    show: Callable[[Snapshot], None],
    stopped: asyncio.Event,
) -> None:
    """Deliver samples while faults strike, then shut the fleet down in order."""
    began = monitor.elapsed_seconds

    def elapsed() -> float:
        return monitor.elapsed_seconds - began

    striking = [asyncio.create_task(containers.strike(fault, elapsed)) for fault in run.faults]

    def check() -> None:
        if elapsed() > START_SECONDS and not any(sensor.delivered for sensor in monitor.sensors):
            raise ConfigurationError(f"no device has taken a sample within {START_SECONDS:g} s; see {LOG_FILE}")
        for task in striking:
            if task.done():
                task.result()

    try:
        await feed(
            monitor,
            show,
            stopped,
            until_seconds=began + run.longest_seconds,
            check=check,
            absent=lambda: not_waited_for(run.faults, elapsed()),
            more_to_come=lambda: not all(task.done() for task in striking),
        )
        await monitor.refresh()
    finally:
        for task in striking:
            task.cancel()
        await asyncio.gather(*striking, return_exceptions=True)
    await containers.stop()
    await monitor.observer.until_silent()
