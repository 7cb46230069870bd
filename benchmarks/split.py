"""Split learning over a real Mosquitto: `python -m benchmarks.split --data-dir FOLDER`.

Devices train `models/mnist_cnn` with its helper, each program as shipped (`benchmarks.split_fleet`). `overhead_ratio`
is the time of a step against the same blocks chained in one process; `bottleneck` is the program that used most of the
processor meanwhile. Wire formats are compared on loopback with one step under way; latencies, and several steps under
way, with the format of the task.
"""

import argparse
import json
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from benchmarks.mnist import read_mnist
from benchmarks.split_fleet import SplitFleet, relayed, split_fleet
from bundle_runtime.blocks import BlockRunner
from bundle_runtime.runner import bundle_paths
from bundle_runtime.samples import Samples
from bundle_runtime.trained_block import TrainedBlock
from edge_agent.training.engine import Rates, plan_batches
from fleet_protocol.bundle import parse_description
from fleet_protocol.bundle_files import DESCRIPTION_FILE, WEIGHTS_FILE
from fleet_protocol.codec import read_weights
from fleet_protocol.task_description import TaskDescription
from workbench.recipe_folder import find_recipe

RECIPE = "mnist_cnn"
SAMPLES = 256
"""Of each device."""
WARM_STEPS = 20
"""That are not counted: the worker and the helper load their graphs, and the round trip is not known yet."""
MEASURED_SECONDS = 12.0
STEPS = 100_000
"""Of a round: more than anybody waits for."""
CHAINED_STEPS = 300
RELAYED = {sender: f'edgeflock_relayed_bytes_total{{sender="{sender}"}}' for sender in ("device", "helper")}


@dataclass(frozen=True, slots=True)
class Setting:
    """One measurement: so many devices and one helper."""

    devices: int
    wire: str
    latency_milliseconds: float
    in_flight: int


def measure(setting: Setting, samples: Samples, chained_seconds: float) -> dict[str, Any]:
    """What a fleet does in a setting."""
    with tempfile.TemporaryDirectory(prefix="split-") as name:
        folder = Path(name)
        task = write_bundle(folder / "bundle", setting)
        assert task.split is not None
        cuts = [task.split.cuts[0].name] * setting.devices
        with split_fleet(folder, folder / "bundle", cuts, latency_milliseconds=setting.latency_milliseconds) as fleet:
            fleet.deliver(parts_of(samples, setting.devices))
            for device in fleet.devices:
                device.train()
            fleet.wait(lambda: min(steps_done(fleet)) >= WARM_STEPS, "every device trains")
            return figures(fleet, setting, chained_seconds)


def figures(fleet: SplitFleet, setting: Setting, chained_seconds: float) -> dict[str, Any]:
    """What happens in `MEASURED_SECONDS`."""
    before, bytes_before, spent_before = steps_done(fleet), relayed(fleet), spent(fleet)
    started = time.monotonic()
    while time.monotonic() - started < MEASURED_SECONDS:
        fleet.check()
        time.sleep(0.2)
    after, bytes_after, spent_after = steps_done(fleet), relayed(fleet), spent(fleet)
    seconds = time.monotonic() - started
    steps = sum(after) - sum(before)
    rate = steps / seconds
    used = {name: (spent_after[name] - spent_before[name]) / seconds for name in spent_after}
    return {
        "devices": setting.devices,
        "wire": setting.wire,
        "latency_ms": setting.latency_milliseconds,
        "most_in_flight": setting.in_flight,
        "steps_per_second": round(rate, 1),
        "bytes_per_step": {
            f"from_{sender}": round((bytes_after[name] - bytes_before.get(name, 0.0)) / steps)
            for sender, name in RELAYED.items()
        },
        "overhead_ratio": round(setting.devices / rate / chained_seconds, 2),
        "cores": {name: round(share, 2) for name, share in used.items()},
        "bottleneck": max(used, key=lambda each: used[each]),
    }


def steps_done(fleet: SplitFleet) -> list[int]:
    """Of each device's round."""
    progress = [device.status()["progress"] for device in fleet.devices]
    return [each["steps_done"] if each else 0 for each in progress]


def spent(fleet: SplitFleet) -> dict[str, float]:
    """Processor seconds so far; those of all devices together."""
    found: dict[str, float] = {}
    for program in fleet.programs:
        name = "devices" if program.name.startswith("device-") else program.name
        found[name] = found.get(name, 0.0) + program.cpu_seconds()
    return found


def write_bundle(folder: Path, setting: Setting) -> TaskDescription:
    """The shipped bundle with endless rounds, and what a setting says of its split."""
    shutil.copytree(find_recipe(RECIPE) / "bundle", folder)
    task = parse_description((folder / DESCRIPTION_FILE).read_bytes())
    assert task.split is not None
    replace = msgspec.structs.replace
    training = replace(task.training, steps=STEPS, maximum_epochs=0, epochs_per_round=0, validation_share=0.0)
    wire = setting.wire
    split = replace(task.split, activations=wire, gradients=wire, most_in_flight=setting.in_flight)
    task = replace(task, training=training, split=split)
    (folder / DESCRIPTION_FILE).write_bytes(msgspec.json.encode(task))
    return task


def chained_step_seconds(samples: Samples) -> float:
    """A step of all blocks in this process, one after the other."""
    folder = find_recipe(RECIPE) / "bundle"
    task = parse_description((folder / DESCRIPTION_FILE).read_bytes())
    assert task.split is not None
    count = len(task.split.blocks)
    runner = BlockRunner(task, bundle_paths(folder, task), range(count))
    weights = read_weights((folder / WEIGHTS_FILE).read_bytes(), task.parameters)
    blocks = [TrainedBlock.of(runner, block, weights) for block in range(count)]
    rates = Rates.planned(task.training)
    plan = plan_batches(len(samples), CHAINED_STEPS, task.training.batch_size, seed=1)
    priors = runner.log_priors(samples.labels)
    started = time.perf_counter()
    for rows in plan.rows:
        gradient: NDArray[np.float32] | None
        batch = samples.take(rows)
        passed = [batch.inputs]
        for block in range(count - 1):
            passed.append(runner.forward(block, blocks[block].weights, passed[-1], seed=1))
        held = blocks[-1]
        last = runner.last(held.weights, held.state, passed[-1], batch.labels, seed=1, rates=rates, log_priors=priors)
        held.accept(last)
        gradient = last.input_gradient
        for block in reversed(range(count - 1)):
            assert gradient is not None
            held = blocks[block]
            back = runner.backward(block, held.weights, held.state, passed[block], gradient, seed=1, rates=rates)
            held.accept(back)
            gradient = back.input_gradient
    return (time.perf_counter() - started) / CHAINED_STEPS


def parts_of(samples: Samples, devices: int) -> list[Samples]:
    """The first samples, in turn."""
    return [samples.take(np.arange(SAMPLES) * devices + number) for number in range(devices)]


def main() -> None:
    """Print one JSON object as the last line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", type=Path, required=True, metavar="FOLDER", help="with MNIST's test images")
    parser.add_argument("--devices", type=int, nargs="+", default=[1, 8], metavar="N")
    parser.add_argument("--wires", nargs="+", default=["float32", "float16", "int8", "int4"], metavar="FORMAT")
    parser.add_argument("--latencies", type=float, nargs="+", default=[50.0], metavar="MS", help="one way")
    parser.add_argument("--in-flight", type=int, nargs="+", default=[1, 16], metavar="N", help="most steps under way")
    options = parser.parse_args()
    digits = read_mnist(options.data_dir)
    samples = Samples(digits.images, digits.labels)
    chained_seconds = chained_step_seconds(samples)
    settings = [Setting(devices, wire, 0.0, 1) for devices in options.devices for wire in options.wires]
    settings += [
        Setting(devices, "int8", latency, in_flight)
        for devices in options.devices
        for latency in [0.0, *options.latencies]
        for in_flight in options.in_flight
        if latency or in_flight > 1
    ]
    measured = []
    for setting in settings:
        measured.append(measure(setting, samples, chained_seconds))
        print(json.dumps(measured[-1]), flush=True)
    print(json.dumps({"chained_step_ms": round(1000 * chained_seconds, 2), "measured": measured}))


if __name__ == "__main__":
    main()
