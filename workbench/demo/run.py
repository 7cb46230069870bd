"""One demo run: starts the fleet, delivers samples to it, stops it, and returns the history."""

import asyncio
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from bundle_runtime.bundle_folder import load_bundle
from fleet_protocol.bundle import parse_description
from fleet_protocol.bundle_files import DESCRIPTION_FILE
from fleet_protocol.errors import ConfigurationError
from workbench.data.digits import FleetData
from workbench.data.two_domains import DomainData
from workbench.demo.brokers import BrokerPlan, plan_broker
from workbench.demo.children import Child, ChildFailedError
from workbench.demo.demo_kind import PLAIN, DemoKind
from workbench.demo.drawn.gallery import Gallery
from workbench.demo.drawn.measurement import DrawingMeasurement
from workbench.demo.drawn.picture_folder import PictureFolder
from workbench.demo.feeding import feed
from workbench.demo.fleet_files import FleetFiles, plan_files, program, write_fleet
from workbench.demo.helper import allow_helper, helper_child, until_ready, write_helper
from workbench.demo.mask_helpers import until_enrolled, write_mask_helpers
from workbench.demo.measurement import Measurement
from workbench.demo.monitor import FleetMonitor, Snapshot
from workbench.demo.observer import Observer
from workbench.demo.sensors import Sensor
from workbench.demo.version_at_once import until_all_is_in_a_version
from workbench.privacy_modes.private_bundle import private_bundle
from workbench.recipe_folder import find_bundle
from workbench.report.history import RunHistory

NEW_SAMPLES = 6
"""How many new samples wake an agent, where the kind of demo does not say it."""
SLOWEST_SENSOR = 0.9
SLOWEST_CPU_SHARE = 0.6
START_SECONDS = 15.0
PICTURES = "pictures"
BUNDLE = "bundle"
"""The folder of a bundle that was made for this demo."""


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """What the user chose."""

    agents: int
    seed: int
    folder: Path
    """Empty, and this demo's alone (`run_folder.claimed`)."""
    broker: str
    kind: DemoKind = PLAIN
    dashboard_port: int | None = None
    """Of this machine, free; None: no dashboard."""


class Demo:
    """One fleet on this machine. `show` is called with a snapshot about twice a second."""

    def __init__(self, options: DemoOptions, show: Callable[[Snapshot], None]) -> None:
        self._options = options
        self._show = show
        self._stopped = asyncio.Event()

    def stop(self) -> None:
        """End the run now, in order."""
        self._stopped.set()

    async def run(self) -> RunHistory:
        """Run to the end and return what happened.

        Raises:
            ConfigurationError: the broker or the number of agents is not usable.
            ChildFailedError: one of the programs ended by itself before the fleet had begun.
            CommandFailedError: a key could not be made.
        """
        started = time.monotonic()
        generator = np.random.default_rng(self._options.seed)
        kind = self._options.kind
        bundle = self._bundle(find_bundle(kind.bundle or kind.task))
        data = kind.data(self._options.agents, generator)
        paces = sensor_paces(self._options.agents, generator)
        cpu_shares = generator.uniform(SLOWEST_CPU_SHARE, 1.0, self._options.agents)
        cpu_shares *= np.resize(kind.cpu_shares, cpu_shares.size)
        new_samples = kind.new_samples or min(map(len, data.parts))
        with short_folder() as sockets:
            files = plan_files(self._options.folder, sockets, self._options.agents, task=kind.task, cuts=kind.cuts)
            broker = plan_broker(self._options.broker, files.folder)
            key = await write_fleet(
                files,
                broker,
                bundle,
                cpu_shares.tolist(),
                new_samples,
                keeps_training=kind.keeps_training,
                dashboard_port=self._options.dashboard_port,
            )
            monitor = fleet_monitor(files, data, [kind.sensing_seconds * pace for pace in paces], bundle, broker)
            monitor.new_samples = new_samples
            monitor.subject = kind.subject
            monitor.helpers = [await write_helper(files, sockets, broker, key)] if kind.has_helper else []
            if kind.privacy == "masks":
                monitor.mask_helpers = await write_mask_helpers(files, sockets, broker, key, bundle)
            monitor.privacy = kind.privacy or "none"
            monitor.started = started
            return await self._run_fleet(monitor, broker)

    def _bundle(self, usual: Path) -> Path:
        """That of the mode of privacy that was asked for."""
        options = self._options
        if options.kind.privacy is None:
            return usual
        return private_bundle(usual, options.kind.privacy, options.folder / BUNDLE, options.agents)

    async def _run_fleet(self, monitor: FleetMonitor, broker: BrokerPlan) -> RunHistory:
        kind = self._options.kind
        broker_child, coordinator, *agents = _plan_children(monitor, broker)
        helpers = [helper_child(helper, monitor.announce) for helper in monitor.helpers]
        mask_helpers = [helper_child(helper, monitor.announce) for helper in monitor.mask_helpers]
        children = [broker_child, coordinator, *helpers, *mask_helpers, *agents]
        observing = asyncio.create_task(monitor.observer.run())
        failure = ""
        try:
            await broker_child.start()
            await until_set(monitor.observer.subscribed, f"no broker answers on {broker.host}:{broker.port}")
            await coordinator.start()
            await until_set(
                monitor.observer.manifest_received, "the coordinator announces no task; see coordinator.log"
            )
            for helper, child in zip(monitor.helpers, helpers, strict=True):
                await allow_helper(monitor.files, helper)
                await child.start()
                await until_ready(helper, monitor.files.task)
            for child in mask_helpers:
                await child.start()
            for helper in monitor.mask_helpers:
                await until_enrolled(helper)
            for agent in agents:
                await agent.start()
            try:
                await feed(
                    monitor,
                    self._show,
                    self._stopped,
                    until_seconds=kind.longest_seconds,
                    check=lambda: _check(children),
                    more_to_come=lambda: kind.keeps_training,
                )
            except ChildFailedError as error:  # what the fleet has learned until then is reported all the same
                failure = str(error)
            if kind.speaks_once:
                await until_all_is_in_a_version(monitor)
            await monitor.refresh()
        finally:
            for group in (agents, [*helpers, *mask_helpers], [coordinator]):
                await asyncio.gather(*(child.stop() for child in group))
            await monitor.observer.until_silent()
            observing.cancel()
            await broker_child.stop()
        monitor.read_journal()
        history = monitor.conclude(seed=self._options.seed, stopped_early=self._stopped.is_set() or bool(failure))
        return msgspec.structs.replace(history, failure=failure)


def sensor_paces(devices: int, generator: np.random.Generator) -> list[float]:
    """For each device's sensor, the share of the longest time that it takes to deliver its samples."""
    return [float(pace) for pace in generator.uniform(SLOWEST_SENSOR, 1.0, devices)]


def fleet_monitor(
    files: FleetFiles, data: FleetData, sensing_seconds: Sequence[float], bundle: Path, broker: BrokerPlan
) -> FleetMonitor:
    """What watches a fleet of digits, with a sensor for each device that delivers its part in so many seconds."""
    sensors = [
        Sensor(
            device.socket, files.task, part, seconds, named=data.input_names if isinstance(data, DomainData) else None
        )
        for device, part, seconds in zip(files.devices, data.parts, sensing_seconds, strict=True)
    ]
    if isinstance(data, DomainData):
        return _drawing_monitor(files, sensors, data, bundle, broker)
    measurement = Measurement(bundle, parse_description((bundle / DESCRIPTION_FILE).read_bytes()), data)
    return FleetMonitor(files, sensors, Observer(broker), measurement, broker.label, NEW_SAMPLES)


def _drawing_monitor(
    files: FleetFiles, sensors: Sequence[Sensor], data: DomainData, bundle_folder: Path, broker: BrokerPlan
) -> FleetMonitor:
    """The same of a fleet whose model draws, with pictures of each version in a folder."""
    bundle, devices = load_bundle(bundle_folder), [device.name for device in files.devices]
    measurement = DrawingMeasurement(bundle, data, devices)
    monitor = FleetMonitor(files, sensors, Observer(broker), measurement, broker.label, NEW_SAMPLES)
    folder = PictureFolder(files.folder / PICTURES, monitor.announce)
    monitor.gallery = Gallery(bundle, devices, folder.show)
    return monitor


async def run_demo(options: DemoOptions, show: Callable[[Snapshot], None]) -> RunHistory:
    """Run a demo; Ctrl-C and SIGTERM end it early and in order. Raises what `Demo.run` raises."""
    demo = Demo(options, show)
    on_signals(demo.stop)
    return await demo.run()


def _plan_children(monitor: FleetMonitor, broker: BrokerPlan) -> list[Child]:
    """The broker, the coordinator, then the agents."""
    files = monitor.files
    coordinator = program("broker_coordinator.cli", "run", "--config", str(files.coordinator_configuration))
    agents = [
        Child(
            device.name,
            program("edge_agent.cli", "run", "--config", str(device.configuration)),
            device.folder / "agent.log",
            monitor.announce,
        )
        for device in files.devices
    ]
    return [
        Child("broker", broker.command, files.folder / "broker.log", monitor.announce),
        Child("coordinator", coordinator, files.folder / "coordinator.log", monitor.announce),
        *agents,
    ]


def _check(children: Sequence[Child]) -> None:
    for child in children:
        child.check()


def on_signals(stop: Callable[[], None]) -> None:
    """Call `stop` for Ctrl-C and SIGTERM."""
    for name in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(name, stop)


async def until_set(event: asyncio.Event, otherwise: str, seconds: float = START_SECONDS) -> None:
    """Wait for what a fleet needs to go on.

    Raises:
        ConfigurationError: with `otherwise`; it took longer.
    """
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        raise ConfigurationError(f"{otherwise} (waited {seconds:g} s)") from None


@contextmanager
def short_folder() -> Iterator[Path]:
    """A new folder whose path leaves room for that of a socket in it; deleted at the end."""
    folder = Path(tempfile.mkdtemp(prefix="edgeflock-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
