"""What it costs a device to follow the versions, and what rounding them costs in accuracy.

python -m benchmarks.downlink --data-dir FOLDER [--seeds 3]

An asynchronous fleet learns in one process, by the shipped training graph, update codec and server step. "float32" is
what a device fetches without differences; "exact" and "rounded" are the two ways to pack them; "chain" is what this
project does not do: a ternary tenth of each version, with the rest kept for the next, every one of them to be applied.
"""

import argparse
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.mnist import read_mnist
from broker_coordinator.aggregation.contribution import BufferedUpdate
from broker_coordinator.aggregation.server_state import ServerState
from broker_coordinator.aggregation.server_step import initial_state, next_state
from bundle_runtime.runner import BundleRunner, bundle_paths
from bundle_runtime.samples import Samples
from edge_agent.training.engine import Rates, plan_batches
from edge_agent.training.onnx_step import OnnxStepEngine
from fleet_protocol.bundle import parse_description
from fleet_protocol.bundle_files import DESCRIPTION_FILE, TRAIN_FILE, WEIGHTS_FILE
from fleet_protocol.codec import Grid, encode_difference, encode_update, read_weights
from fleet_protocol.codec.sparse import FloatVector
from fleet_protocol.task_description import TaskDescription
from fleet_protocol.update_plan import UpdatePlan
from workbench.data.digits import split_digits
from workbench.export.bundle_writer import export_bundle
from workbench.recipe_folder import find_recipe

APART = (1, 2, 4, 8, 16, 32, 64)
"""Versions made between two rounds of one device."""
PUBLICATIONS = ("float32", "rounded 0", "rounded 1", "rounded 2", "rounded 3", "chain")
CHAIN = UpdatePlan(keep_fraction=0.1)
PAIRS = 6
DIRICHLET = 0.3
MNIST_HELD_OUT = 2_000
MNIST_MODEL = """
from torch import nn

def build() -> nn.Module:
    return nn.Sequential(nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 10))
"""
MNIST_TASK = """
task = "mnist"
title = "MNIST, 784-64-10"
[input]
shape = [784]
minimum = 0.0
maximum = 1.0
[label]
classes = 10
[training]
steps = 20
batch_size = 16
learning_rate = 0.1
[update]
keep_fraction = 0.01
[aggregation]
buffer_size = 5
server_momentum = 0.6
"""


@dataclass(frozen=True, slots=True)
class Fleet:
    """A task, its devices' samples, and the held-out samples."""

    bundle: Path
    task: TaskDescription
    parts: Sequence[Samples]
    held_out: Samples
    training_at_once: int
    updates: int


@dataclass(slots=True)
class Publisher:
    """What devices train from: true weights rounded, or approached by a chain, or as they are."""

    how: str
    fleet: Fleet
    published: FloatVector
    grid: Grid | None = None
    chain_bytes: list[int] = field(default_factory=list)

    def publish(self, weights: FloatVector) -> FloatVector:
        """The next version."""
        if self.grid is not None:
            self.published = self.grid.rounded(weights, self.fleet.task.shapes)
        elif self.how == "chain":
            missing = weights - self.published
            encoded = encode_update(missing, self.fleet.task.shapes, CHAIN, np.random.default_rng(0))
            self.published = self.published.copy()
            encoded.sent.add_to(self.published)
            self.chain_bytes.append(len(encoded.packed))
        else:
            self.published = weights
        return self.published


def digits_fleet(seed: int) -> Fleet:
    """The demo's: eight devices, all of them at work."""
    data = split_digits(8, np.random.default_rng(seed))
    bundle = find_recipe("digits") / "bundle"
    task = parse_description((bundle / DESCRIPTION_FILE).read_bytes())
    return Fleet(bundle, task, data.parts, data.held_out, 8, 200)


def mnist_fleet(seed: int, data: Path, folder: Path) -> Fleet:
    """A hundred devices, ten of them at work."""
    (folder / "model.py").write_text(MNIST_MODEL)
    (folder / "task.toml").write_text(MNIST_TASK)
    task = export_bundle(folder, folder / "bundle")
    digits = read_mnist(data)
    generator = np.random.default_rng(seed)
    inputs = digits.images.reshape(-1, 784)
    order = generator.permutation(len(digits.labels))
    shares = generator.dirichlet([DIRICHLET] * 100, size=10)
    owners = np.empty(len(order), np.int64)
    for digit, share in enumerate(shares):
        rows = np.flatnonzero(digits.labels == digit)
        owners[rows] = generator.choice(100, len(rows), p=share)
    rows = order[MNIST_HELD_OUT:]
    held_out = order[:MNIST_HELD_OUT]
    owned = [rows[owners[rows] == device] for device in range(100)]
    samples = Samples(inputs, digits.labels)
    parts = [samples.take(own) for own in owned if len(own) > 0]
    return Fleet(folder / "bundle", task, parts, samples.take(held_out), 10, 1000)


def learn(fleet: Fleet, how: str, seed: int) -> tuple[list[FloatVector], Publisher]:
    """All versions that devices would have trained from."""
    task = fleet.task
    generator = np.random.default_rng((seed, 7))
    first = read_weights((fleet.bundle / WEIGHTS_FILE).read_bytes(), task.parameters)
    grid = Grid.below(first, task.shapes, int(how.split()[1])) if how.startswith("rounded") else None
    publisher = Publisher(how, fleet, first, grid)
    state = initial_state(first, task.aggregation)
    engine = OnnxStepEngine(fleet.bundle / TRAIN_FILE, threads=1)
    versions = [first]
    residuals: dict[int, FloatVector] = {}
    at_work = [(_pick(fleet, generator), 0) for _ in range(fleet.training_at_once)]
    buffer = list[BufferedUpdate]()
    for number in range(fleet.updates):
        device, base = at_work.pop(int(generator.integers(len(at_work))))
        trained = _train(engine, fleet, versions[base], device, number)
        total = trained - versions[base] + residuals.get(device, np.float32(0))
        update = encode_update(total, task.shapes, task.update, np.random.default_rng(number)).sent
        update.add_to(total, -1.0)
        residuals[device] = total
        samples = len(fleet.parts[device].labels)
        staleness = len(versions) - 1 - base
        buffer.append(BufferedUpdate(str(device), update, samples, base, staleness))
        if len(buffer) == task.aggregation.smallest_buffer:
            state, buffer = _step(state, buffer, fleet), []
            versions.append(publisher.publish(state.weights))
        at_work.append((_pick(fleet, generator), len(versions) - 1))
    return versions, publisher


def _step(state: ServerState, buffer: list[BufferedUpdate], fleet: Fleet) -> ServerState:
    return next_state(state, buffer, fleet.task.aggregation)


def _pick(fleet: Fleet, generator: np.random.Generator) -> int:
    return int(generator.integers(len(fleet.parts)))


def _train(engine: OnnxStepEngine, fleet: Fleet, weights: FloatVector, device: int, seed: int) -> FloatVector:
    plan = fleet.task.training
    samples = fleet.parts[device]
    batches = plan_batches(len(samples.labels), plan.steps, plan.batch_size, seed)
    return engine.train(weights, samples, batches, Rates.planned(plan))[0]


def accuracy(fleet: Fleet, versions: Sequence[FloatVector]) -> float:
    """Mean over the last quarter of the versions, each measured by itself: single ones vary too much."""
    runner = BundleRunner(fleet.task, bundle_paths(fleet.bundle, fleet.task))
    last = versions[-max(1, len(versions) // 4) :: max(1, len(versions) // 40)]
    found = [runner.evaluate(weights, fleet.held_out).correct for weights in last]
    return float(np.mean([np.mean(correct) for correct in found if correct is not None]))


def difference_bytes(fleet: Fleet, versions: Sequence[FloatVector], grid: Grid | None) -> dict[str, float]:
    """Mean bytes of a difference over so many versions, taken all over training, and of a whole version."""

    def mean(apart: int | None, targets: Sequence[int]) -> float:
        bases = [None if apart is None else versions[at - apart] for at in targets]
        shapes = fleet.task.shapes
        packed = [encode_difference(base, versions[at], shapes, grid) for base, at in zip(bases, targets, strict=True)]
        return float(np.mean([len(each) for each in packed]))

    newest = len(versions) - 1
    costs = {"whole": mean(None, _spread(1, newest))}
    for apart in (apart for apart in APART if apart < newest):
        costs[str(apart)] = mean(apart, _spread(apart + 1, newest))
    return costs


def _spread(first: int, last: int) -> list[int]:
    return sorted({round(at) for at in np.linspace(first, last, PAIRS)})


def measure(make_fleet: Callable[[int], Fleet], seeds: int) -> dict[str, Any]:
    """Every way to publish, on the same fleets."""
    result: dict[str, Any] = {how: {"accuracy": []} for how in PUBLICATIONS}
    for seed in range(seeds):
        fleet = make_fleet(seed)
        for how in PUBLICATIONS:
            versions, publisher = learn(fleet, how, seed)
            result[how]["accuracy"].append(round(accuracy(fleet, versions), 4))
            if seed == 0:
                result[how]["bytes"] = costs_of(fleet, versions, publisher)
                print(how, json.dumps(result[how]))
    for how in PUBLICATIONS:
        result[how]["mean_accuracy"] = round(float(np.mean(result[how]["accuracy"])), 4)
    return {"parameters": fleet.task.parameter_count, "float32_bytes": 4 * fleet.task.parameter_count, **result}


def costs_of(fleet: Fleet, versions: Sequence[FloatVector], publisher: Publisher) -> dict[str, float]:
    """Bytes by the number of versions between; a chain costs the sum of its links."""
    if publisher.how == "chain":
        return {str(apart): apart * float(np.mean(publisher.chain_bytes)) for apart in APART}
    return difference_bytes(fleet, versions, publisher.grid)


def main() -> None:
    """Print one line per way and task, then everything as one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", type=Path, required=True, help="folder of the MNIST test files")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        results = {
            "digits": measure(digits_fleet, options.seeds),
            "mnist": measure(lambda seed: mnist_fleet(seed, options.data_dir, Path(folder)), options.seeds),
        }
    print(json.dumps(results))


if __name__ == "__main__":
    main()
