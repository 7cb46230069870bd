"""The shipped agent on a real Mosquitto, with a real coordinator that makes no version meanwhile."""

import asyncio
import contextlib
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event

import msgspec
import psutil
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion

from benchmarks.footprint.counting_proxy import CountingProxy
from benchmarks.footprint.environments import environment_with, installed_mb
from benchmarks.footprint.processes import MB, Idle, family, idle, memory_mb, running, until
from edge_agent.client import AgentClient
from fleet_protocol.bundle import parse_description
from fleet_protocol.bundle_files import DESCRIPTION_FILE
from workbench.demo.brokers import BrokerPlan, plan_broker
from workbench.demo.fleet_files import DeviceFiles, FleetFiles, plan_files, program, write_fleet
from workbench.recipe_folder import find_recipe

TREE = Path(__file__).parents[2]
SAMPLES = 64
KEEPALIVE_SECONDS = 300
PREDICTIONS = 20


class EdgeflockFootprint(msgspec.Struct):
    """Milliseconds, and megabytes of 10^6 bytes. Medians where something was done several times."""

    idle: Idle
    cold_start_ms: float
    wake_to_published_ms_cold: float
    wake_to_published_ms_warm: float
    worker_peak_rss_mb: float
    rss_before_training_mb: float
    rss_after_training_mb: float
    trainings: int
    predict_ms: float
    installed_mb: float


class Published:
    """Hears when the agent publishes an update."""

    def __init__(self, broker: BrokerPlan) -> None:
        self._came = Event()
        self._client = paho.Client(CallbackAPIVersion.VERSION2, "footprint")
        self._client.on_message = lambda *_: self._came.set()
        self._client.connect(broker.host, broker.port)
        self._client.subscribe("edgeflock/v1/+/+/+/up")
        self._client.loop_start()

    def expect(self) -> None:
        """From now on."""
        self._came.clear()

    @property
    def came(self) -> bool:
        """Whether there was one."""
        return self._came.is_set()

    def close(self) -> None:
        """Hear no more."""
        self._client.disconnect()
        self._client.loop_stop()


def measure(folder: Path, seconds: float, trainings: int) -> EdgeflockFootprint:
    """Start everything in a folder, and look on."""
    bundle = _bundle(folder / "bundle")
    broker = plan_broker("mosquitto", folder)
    files = plan_files(folder, folder / "sockets", 1)
    with running(broker.command or [], folder / "broker.log"):
        proxy = CountingProxy(broker.port)
        asyncio.run(write_fleet(files, broker, bundle, [1.0], SAMPLES))
        _with_proxy(files.devices[0], broker, proxy)
        coordinator = program("broker_coordinator.cli", "run", "--config", str(files.coordinator_configuration))
        with running(coordinator, folder / "coordinator.log"):
            log = folder / "coordinator.log"
            until(lambda: "broker_connected" in log.read_text(), "the coordinator serves")
            published = Published(broker)
            try:
                return _look_at_agent(files, seconds, trainings, published, proxy)
            finally:
                published.close()
                proxy.close()


def _bundle(folder: Path) -> Path:
    """The digits recipe, whose devices never have enough of their samples, and which makes no version meanwhile."""
    shutil.copytree(find_recipe("digits") / "bundle", folder)
    description = parse_description((folder / DESCRIPTION_FILE).read_bytes())
    changed = msgspec.structs.replace(
        description,
        aggregation=msgspec.structs.replace(description.aggregation, buffer_size=4096),
        training=msgspec.structs.replace(description.training, maximum_epochs=0),
    )
    (folder / DESCRIPTION_FILE).write_bytes(msgspec.json.encode(changed))
    return folder


def _with_proxy(device: DeviceFiles, broker: BrokerPlan, proxy: CountingProxy) -> None:
    text = device.configuration.read_text()
    text = text.replace(f"port = {broker.port}", f"port = {proxy.port}")
    device.configuration.write_text(text.replace("keepalive_seconds = 10", f"keepalive_seconds = {KEEPALIVE_SECONDS}"))


def _look_at_agent(
    files: FleetFiles, seconds: float, trainings: int, published: Published, proxy: CountingProxy
) -> EdgeflockFootprint:
    (device,) = files.devices
    log = device.folder / "agent.log"
    begun = time.perf_counter()
    with running(program("edge_agent.cli", "run", "--config", str(device.configuration)), log) as agent:
        until(lambda: _listens(device.socket), "the agent listens")
        with AgentClient(device.socket) as client:
            until(lambda: client.status()["versions"], "the agent knows a version")
            cold_start = 1000 * (time.perf_counter() - begun)
            time.sleep(seconds / 6)  # what a start leaves behind
            looked = idle(agent, seconds, lambda: proxy.transferred)
            before, _ = memory_mb(agent)
            _wake(client, published)  # fetches the bundle too
            cold = _median(_cold_wakes(client, agent, published))
            warm = _median(_wake(client, published) for _ in range(trainings))
            peak = _peak_of_a_wake(client, agent, published)
            until(lambda: len(family(agent)) == 1, "the worker has left")
            after, _ = memory_mb(agent)
            predict = _median(_predictions(client))
    return EdgeflockFootprint(
        looked, cold_start, cold, warm, peak, before, after, trainings, predict, installed_agent_mb()
    )


def _listens(path: Path) -> bool:
    with contextlib.suppress(OSError):
        AgentClient(path).close()
        return True
    return False


def _cold_wakes(client: AgentClient, agent: psutil.Process, published: Published) -> Iterator[float]:
    for _ in range(3):
        until(lambda: len(family(agent)) == 1, "the worker has left")
        yield _wake(client, published)


def _wake(client: AgentClient, published: Published) -> float:
    """Milliseconds from the sample that fires the trigger to the update at the broker."""
    begun = _begin_wake(client, published)
    until(lambda: published.came, "an update is published")
    wall = 1000 * (time.perf_counter() - begun)
    _end_wake(client)
    return wall


def _peak_of_a_wake(client: AgentClient, agent: psutil.Process, published: Published) -> float:
    """The most memory of any process of a training, in megabytes. Looking for it takes time, which is not measured."""
    highest = 0.0

    def has_come() -> bool:
        nonlocal highest
        highest = max(highest, *(peak_mb(child) for child in agent.children(recursive=True)), 0.0)
        return published.came

    _begin_wake(client, published)
    until(has_come, "an update is published")
    _end_wake(client)
    return highest


def _begin_wake(client: AgentClient, published: Published) -> float:
    for number in range(SAMPLES - 1):
        client.send("digits", [((place * 7 + number * 13) % 10) / 10 for place in range(64)], number % 10)
    published.expect()
    begun = time.perf_counter()
    client.send("digits", [0.5] * 64, 1)
    return begun


def _end_wake(client: AgentClient) -> None:
    until(lambda: client.status()["state"] == "sleeping" and not client.status()["waiting_updates"], "its receipt came")


def peak_mb(process: psutil.Process) -> float:
    """The most memory that it has ever had."""
    try:
        lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((1024 * int(line.split()[1]) / MB for line in lines if line.startswith("VmHWM")), 0.0)


def _predictions(client: AgentClient) -> Iterator[float]:
    client.predict("digits", {"inputs": [0.5] * 64})
    for _ in range(PREDICTIONS):
        begun = time.perf_counter()
        client.predict("digits", {"inputs": [0.5] * 64})
        yield 1000 * (time.perf_counter() - begun)


def _median(values: Iterator[float]) -> float:
    found = sorted(values)
    return found[len(found) // 2]


def installed_agent_mb() -> float:
    """What `pip install edgeflock` brings to a device."""
    return installed_mb(environment_with("edgeflock", str(TREE)))
