"""What the formats of split learning cost: accuracy after equal steps, and bytes of a step each way.

`python -m benchmarks.split_accuracy --data ../shared/data` prints one JSON object as its last line. Everything runs in
this process: the device's engine, the codec and the helper's middle, without encryption and network. The task is
`models/mnist_cnn`; formats and rules were chosen on the 10,000 digits of MNIST, and the clothes of Fashion-MNIST show
whether they hold on what nobody has looked at.
"""

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from benchmarks.mnist import read_mnist
from benchmarks.split_rounds import SplitFleet, Traffic
from benchmarks.zoo.samples.pictures import fashion
from bundle_runtime.bundle import Bundle
from bundle_runtime.bundle_folder import load_bundle
from bundle_runtime.runner import BundleRunner
from bundle_runtime.samples import Samples
from edge_agent.training.engine import Rates, plan_batches
from edge_agent.training.onnx_step import OnnxStepEngine
from fleet_protocol.codec import read_weights
from fleet_protocol.split_plan import SplitPlan

BUNDLE = Path(__file__).parents[1] / "models" / "mnist_cnn" / "bundle"
ROUNDS, STEPS = 8, 60
TEST_SHARE = 0.2
FORMATS: dict[str, dict[str, object]] = {
    "float32": {"activations": "float32", "gradients": "float32"},
    "float16": {"activations": "float16", "gradients": "float16"},
    "int8": {},
    "int4": {"activations": "int4", "gradients": "int4"},
    "int8, a tenth of each gradient": {"gradient_selection": "top_k", "gradient_keep": 0.1},
    "int8, a random tenth": {"gradient_selection": "random_top_k", "gradient_keep": 0.1},
}
IN_FLIGHT = (1, 4, 16)
DEVICES = (1, 8)
DEFENCES: dict[str, dict[str, object]] = {
    "none": {},
    "noise 0.2": {"activation_noise": 0.2},
    "noise 0.5": {"activation_noise": 0.5},
    "noise 1": {"activation_noise": 1.0},
    "clip 1": {"gradient_clip": 1.0},
    "clip 0.1": {"gradient_clip": 0.1},
    "distance correlation 0.5": {"distance_correlation": 0.5},
    "distance correlation 5": {"distance_correlation": 5.0},
}


@dataclass(frozen=True)
class Case:
    """So many devices with even shares of the samples, and what differs from the task's plan."""

    name: str
    devices: int = 1
    changes: tuple[tuple[str, object], ...] = ()
    at_once: int = 8


@dataclass(frozen=True)
class Outcome:
    """Accuracy on what was held out, and mean bytes of a step."""

    case: str
    devices: int
    accuracy: float
    bytes_to_helper: int
    bytes_to_device: int
    seconds: float


def cases() -> Iterator[Case]:
    """One thing after the other: formats; steps under way and devices; defences."""
    for name, changes in FORMATS.items():
        yield Case(name, 1, (*changes.items(), ("most_in_flight", 1)))
    for devices in DEVICES:
        for in_flight in IN_FLIGHT:
            yield Case(f"int8, {in_flight} in flight", devices, (("most_in_flight", in_flight),))
    for name, changes in DEFENCES.items():
        yield Case(f"int8, defence {name}", 1, (*changes.items(), ("most_in_flight", 1)))


def plan_of(bundle: Bundle) -> SplitPlan:
    """How its task divides."""
    assert bundle.description.split is not None
    return bundle.description.split


def divided(samples: Samples, seed: int) -> tuple[Samples, Samples]:
    """To train on and to test on."""
    order = np.random.default_rng(seed).permutation(len(samples))
    tested = round(TEST_SHARE * len(order))
    return samples.take(order[tested:]), samples.take(order[:tested])


def shares(samples: Samples, devices: int) -> list[Samples]:
    """Every device's."""
    return [samples.take(slice(device, None, devices)) for device in range(devices)]


def run_case(bundle: Bundle, samples: Samples, case: Case, seed: int, rounds: int = ROUNDS) -> Outcome:
    """All rounds of a case."""
    task, began = bundle.description, time.monotonic()
    plan = msgspec.structs.replace(plan_of(bundle), **dict(case.changes))
    training, tested = divided(samples, seed)
    fleet = SplitFleet(
        task, plan, bundle.files, shares(training, case.devices), [plan.cuts[0]] * case.devices, case.at_once
    )
    weights = read_weights(bundle.weights, task.parameters)
    traffic = Traffic()
    for number in range(rounds):
        weights = fleet.round(weights, STEPS, seed * rounds + number, traffic)
    accuracy = BundleRunner(task, bundle.files).evaluate(weights, tested).accuracy
    return Outcome(
        case.name,
        case.devices,
        round(float(accuracy or 0), 4),
        traffic.to_helper // traffic.steps,
        traffic.to_device // traffic.steps,
        round(time.monotonic() - began, 1),
    )


def run_unsplit(bundle: Bundle, samples: Samples, devices: int, seed: int, rounds: int = ROUNDS) -> Outcome:
    """The same rounds without a helper."""
    task, began = bundle.description, time.monotonic()
    training, tested = divided(samples, seed)
    weights = read_weights(bundle.weights, task.parameters)
    engine = OnnxStepEngine.of_task(task, bundle.files)
    for number in range(rounds):
        trained = [
            engine.train(
                weights,
                part,
                plan_batches(len(part), STEPS, task.training.batch_size, (seed * rounds + number) * 1000 + device),
                Rates.planned(task.training),
            )[0]
            for device, part in enumerate(shares(training, devices))
        ]
        weights = np.array(sum(trained) / np.float32(devices), np.float32)
    accuracy = BundleRunner(task, bundle.files).evaluate(weights, tested).accuracy
    return Outcome("unsplit", devices, round(float(accuracy or 0), 4), 0, 0, round(time.monotonic() - began, 1))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder with the data sets")
    parser.add_argument("--seeds", type=int, default=1, help="runs of every case")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"of {STEPS} steps on each device")
    parser.add_argument("--set", choices=["mnist", "fashion"], default="mnist", help="what is learned")
    parser.add_argument("--cases", default="", help="only those whose name contains this")
    options = parser.parse_args()
    bundle = load_bundle(BUNDLE)
    digits = read_mnist(options.data)
    samples = Samples(digits.images, digits.labels) if options.set == "mnist" else fashion(options.data)
    found = []
    for seed in range(options.seeds):
        found += [run_unsplit(bundle, samples, devices, seed, options.rounds) for devices in DEVICES]
        for case in cases():
            if options.cases in case.name:
                found.append(run_case(bundle, samples, case, seed, options.rounds))
                print(found[-1], flush=True)
    print(json.dumps({"set": options.set, "steps": options.rounds * STEPS, "cases": [vars(each) for each in found]}))


if __name__ == "__main__":
    main()
