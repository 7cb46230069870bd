"""Five real agents and a real Mosquitto: rooms publish what Zigbee2MQTT would, and the fleet learns from it.

`python -m benchmarks.occupancy_fleet [--task temperature_forecast] [--hours N] [--data-dir DIR]` prints one JSON object
as its last line. DIR holds the two files of the UCI Occupancy Detection data set. The days of datatraining.txt are
shared out, so that two rooms, a Saturday and a Sunday, have never seen anybody. Time is compressed: readings carry
their own, and a virtual hour ends when every agent has trained on it. Who was there is published an hour later, on
another topic.

What is measured on is datatest.txt. Plan and thresholds of both recipes were chosen on datatraining.txt alone, by
leaving out some of its days. `pooled` is one device that has all rows, with the worker that ships.
"""

import argparse
import asyncio
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from benchmarks.occupancy import DATA, TEST_FILE, TRAINING_FILE, read_readings
from benchmarks.one_device import Device
from benchmarks.rooms import House, Room, messages_of, rooms_of, sources_of
from bundle_runtime.bundle import Bundle
from bundle_runtime.bundle_folder import load_bundle
from bundle_runtime.runner import BundleRunner
from bundle_runtime.samples import Samples
from edge_agent.client import AgentClient
from edge_agent.core.prediction import interpret
from fleet_protocol.codec import read_weights
from fleet_protocol.codec.sparse import FloatVector
from workbench.data.named_readings import prepare_rows
from workbench.demo.brokers import BrokerPlan, plan_broker
from workbench.demo.children import Child
from workbench.demo.fleet_files import DeviceFiles, FleetFiles, plan_files, program, run_command, write_fleet
from workbench.demo.sensors import ask_status
from workbench.recipe_folder import find_bundle

ROOMS = 5
WAKE = 60
"""New samples, one a minute, that wake an agent: an hour's. A new version wakes it as well."""
VERSIONS = 100
"""The fleet goes on training until there are so many, when all has been published."""
LONGEST_TRAINING_SECONDS = 600.0
TRIGGER = f"new_samples = {WAKE}"
POLL_SECONDS = 0.05
LONGEST_HOUR_SECONDS = 60.0
"""Real seconds in which every agent has to be done with a virtual hour."""


class Figures(msgspec.Struct):
    """What is printed. For classes scores are accuracies, else mean absolute errors in the unit of the label.

    `baseline` is that of "nobody is there", or "it stays as warm as it is".
    """

    task: str
    rooms: int
    federated: float = 0.0
    pooled: float = 0.0
    baseline: float = 0.0
    readings: int = 0
    samples: int = 0
    updates: int = 0
    predictions: int = 0
    refused: dict[str, int] = {}
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What is run: virtual `hours` of each room, then training until there are so many `versions`."""

    task: str
    data: Path
    hours: int
    versions: int

    @property
    def is_labelled_later(self) -> bool:
        """Whether somebody has to say what the labels are."""
        readings = load_bundle(find_bundle(self.task)).description.readings
        return readings is not None and readings.label is not None and readings.label.found == "by_time"


async def live(house: House, rooms: Sequence[Room], plan: Plan) -> None:
    """The virtual hours of all rooms, and what they train on afterwards.

    Raises:
        TimeoutError: an agent has not trained in time.
    """
    sent = dict.fromkeys((room.device.name for room in rooms), 0)
    for hour in range(plan.hours):
        for room in rooms:
            messages = messages_of(room, hour, labelled=plan.is_labelled_later)
            sent[room.device.name] += await asyncio.to_thread(house.publish, messages)
        async with asyncio.timeout(LONGEST_HOUR_SECONDS):
            for room in rooms:
                while not await _is_done(room, plan.task, sent[room.device.name]):  # noqa: ASYNC110 - the agent announces nothing
                    await asyncio.sleep(POLL_SECONDS)
    async with asyncio.timeout(LONGEST_TRAINING_SECONDS):
        while await _version(rooms[0], plan.task) < plan.versions:  # noqa: ASYNC110 - nor does it announce versions
            await asyncio.sleep(POLL_SECONDS)


async def _is_done(room: Room, task: str, sent: int) -> bool:
    """Whether it has got everything that was sent, and trained on it."""
    status = await ask_status(room.device.socket)
    if status is None:
        return False
    received = sum(source.taken + source.refused.get("label_without_sample", 0) for source in status.sources)
    return received >= sent and status.new_samples[task] < WAKE


async def _version(room: Room, task: str) -> int:
    status = await ask_status(room.device.socket)
    return status.versions[task] if status else 0


def score(bundle: Bundle, weights: FloatVector, samples: Samples) -> float:
    """The share of right classes, or the mean absolute error of numbers."""
    scores = BundleRunner(bundle.description, bundle.files).predict(weights, samples.inputs)
    said = np.array([interpret(row.ravel().tolist(), bundle.description.label).value for row in scores])
    return _score(bundle, said, samples)


def _score(bundle: Bundle, said: NDArray[np.generic], samples: Samples) -> float:
    labels = samples.labels.ravel()
    if bundle.description.label.is_index:
        return float((said == labels).mean())
    return float(np.abs(said.astype(np.float64) - labels).mean())


def baseline(bundle: Bundle, samples: Samples) -> float:
    """Of the answer that needs no model: nobody is there, or it stays as warm as it is."""
    plan = bundle.description.readings
    if plan is None or plan.label is None or bundle.description.label.is_index:
        return _score(bundle, np.zeros(len(samples)), samples)
    low, high = plan.fields[plan.label.field].scale
    place = list(plan.input_fields).index(plan.label.field)
    return _score(bundle, low + (samples.inputs[:, -1, place] + 1) * (high - low) / 2, samples)


async def measure_fleet(plan: Plan, folder: Path, sockets: Path) -> Figures:
    """Run the fleet, and score what it has learned."""
    task, data = plan.task, plan.data
    bundle = load_bundle(find_bundle(task))
    files = plan_files(folder, sockets, ROOMS)
    rooms = rooms_of(read_readings(data / TRAINING_FILE), files)
    broker = plan_broker("mosquitto", folder)
    await write_fleet(files, broker, find_bundle(task), [1.0] * ROOMS, WAKE, task=task)
    for room in rooms:
        written = room.device.configuration.read_text().replace(TRIGGER, f"{TRIGGER}, new_version = true")
        room.device.configuration.write_text(written + sources_of(room, task, broker))
    figures = Figures(task, ROOMS)
    await _run_fleet(files, rooms, broker, figures, plan)
    weights = read_weights((folder / "weights.safetensors").read_bytes(), bundle.description.parameters)
    test = prepare_rows(read_readings(data / TEST_FILE), bundle.description, name=TEST_FILE).samples
    figures.federated, figures.baseline = score(bundle, weights, test), baseline(bundle, test)
    return figures


def pooled_score(task: str, data: Path, folder: Path) -> float:
    """Of one device that has the readings of all rooms."""
    bundle = load_bundle(find_bundle(task))
    training, test = (
        prepare_rows(read_readings(data / file), bundle.description, name=file).samples
        for file in (TRAINING_FILE, TEST_FILE)
    )
    labels = [int(label) if bundle.description.label.is_index else float(label) for label in training.labels.ravel()]
    device = Device(find_bundle(task), folder, new_samples=WAKE * ROOMS)
    return score(bundle, device.live(list(training.inputs), labels), test)


async def _run_fleet(
    files: FleetFiles, rooms: Sequence[Room], broker: BrokerPlan, figures: Figures, plan: Plan
) -> None:
    configuration, log = str(files.coordinator_configuration), files.folder / "coordinator.log"
    children = [
        Child("broker", broker.command, files.folder / "broker.log", print),
        Child("coordinator", program("broker_coordinator.cli", "run", "--config", configuration), log, print),
        *(_agent(room.device) for room in rooms),
    ]
    try:
        await children[0].start()
        await children[1].start()
        await _until(lambda: "broker_connected" in log.read_text())
        for child in children[2:]:
            await child.start()
        for room in rooms:
            await _until_ready(room, figures.task)
        house = await asyncio.to_thread(House, broker, figures.task)
        await live(house, rooms, plan)
        house.close()
        figures.predictions = house.predictions
        for room in rooms:
            await _count(room, figures)
        weights = str(files.folder / "weights.safetensors")
        await run_command("broker_coordinator.cli", "tasks", "export", figures.task, weights, "--config", configuration)
    finally:
        for child in reversed(children):
            await child.stop()


def _agent(device: DeviceFiles) -> Child:
    command = program("edge_agent.cli", "run", "--config", str(device.configuration))
    return Child(device.name, command, device.folder / "agent.log", print)


async def _until_ready(room: Room, task: str) -> None:
    """Its sources listen, and it knows what its readings are made of."""
    while True:
        status = await ask_status(room.device.socket)
        if status and task in status.series and not any(source.failure for source in status.sources):
            return
        if status and task in status.versions and task not in status.series:
            await asyncio.to_thread(_ask_anything, room.device, task)
        await asyncio.sleep(POLL_SECONDS)


def _ask_anything(device: DeviceFiles, task: str) -> None:
    """A question makes an agent fetch the task's description."""
    with AgentClient(device.socket) as agent:
        agent.predict(task, {})


async def _count(room: Room, figures: Figures) -> None:
    status = await ask_status(room.device.socket)
    if status is None:
        raise ConnectionError(f"{room.device.name} does not answer")
    figures.samples += status.samples[figures.task]
    figures.updates += status.accepted_updates
    for source in status.sources:
        figures.readings += source.taken
        for reason, count in source.refused.items():
            figures.refused[reason] = figures.refused.get(reason, 0) + count


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(LONGEST_HOUR_SECONDS):
        while not condition():  # noqa: ASYNC110 - the programs announce nothing
            await asyncio.sleep(POLL_SECONDS)


def run_fleet(plan: Plan) -> Figures:
    """The fleet's figures, from a folder of its own."""
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory(prefix="edgeflock-") as sockets:
        return asyncio.run(measure_fleet(plan, Path(folder), Path(sockets)))


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", choices=["occupancy", "temperature_forecast"], default="occupancy")
    parser.add_argument("--hours", type=int, default=34, help="virtual hours of each room")
    parser.add_argument("--data-dir", type=Path, default=DATA)
    options = parser.parse_args()
    began = time.monotonic()
    figures = run_fleet(Plan(options.task, options.data_dir, options.hours, VERSIONS))
    with tempfile.TemporaryDirectory() as folder:
        figures.pooled = pooled_score(options.task, options.data_dir, Path(folder))
    figures.seconds = round(time.monotonic() - began, 1)
    print(msgspec.json.encode(figures).decode())


if __name__ == "__main__":
    main()
