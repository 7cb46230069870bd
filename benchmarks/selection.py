"""Time to accuracy with devices that are selected: `python -m benchmarks.selection [--data ../shared/data] [--quick]`.

A hundred devices, of which ten train at any time, see unlike classes (Dirichlet 0.1); the slowest one's round takes a
hundred times as long as the fastest one's, 60 s for the median. `random` draws them evenly, as a task without
`[selection]` does; the others select (docs/selection.md). The simulation runs the shipped cores. The target is 95 % of
the accuracy that `random` ends with; a fleet is there when the mean of five scores is. Digits, with half as many
devices, chose the settings; MNIST's 10,000 test images in `--data` show them. Prints a line for each fleet, and one
JSON object as its last line, with how many times sooner than `random` each method is there.
"""

import argparse
import json
import math
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from benchmarks.mnist import read_mnist
from benchmarks.mnist_fleet import BALANCED_RECIPE, FAST
from bundle_runtime.bundle import Bundle
from bundle_runtime.bundle_folder import load_bundle
from bundle_runtime.samples import Samples
from edge_agent.core.guards import GuardSettings
from fleet_protocol.bundle import parse_description
from fleet_protocol.selection_plan import SelectionPlan
from workbench.data.partition import dirichlet_parts
from workbench.data.samples import FEWEST_SAMPLES, HELD_OUT_FRACTION, read_samples
from workbench.export.bundle_writer import export_bundle
from workbench.simulation.conditions import Conditions, FleetMember
from workbench.simulation.ledger import Point
from workbench.simulation.simulation import Options, Simulation
from workbench.simulation.workload import trained_workload

DIGITS_BUNDLE: Final = Path("models/digits/bundle")
MEDIAN_ROUND_SECONDS: Final = 60.0
SPREAD: Final = 100.0
CONCENTRATION: Final = 0.1
TRAINING_AT_A_TIME: Final = 0.1
TARGET_SHARE: Final = 0.95
SMOOTHED_POINTS: Final = 5
SCORE_EVERY: Final = 10
RANDOM: Final = "random"

PATIENCE_SECONDS: Final = 600.0
"""Ten rounds of the median device, and as long as the slowest one's."""

METHODS: Final[Mapping[str, SelectionPlan | None]] = {
    RANDOM: None,
    "utility": SelectionPlan(patience_seconds=PATIENCE_SECONDS, preferred_seconds=MEDIAN_ROUND_SECONDS),
    "utility, speed left out": SelectionPlan(patience_seconds=PATIENCE_SECONDS),
    "power_of_choice": SelectionPlan("power_of_choice", patience_seconds=PATIENCE_SECONDS),
    "pisces": SelectionPlan("pisces", patience_seconds=PATIENCE_SECONDS),
}


@dataclass(frozen=True, slots=True)
class Field:
    """Samples, and the bundle in `folder` that so many devices train with them, for so many updates."""

    folder: Path
    bundle: Bundle
    samples: Samples
    devices: int
    updates: int


class Run(msgspec.Struct, frozen=True):
    """One fleet. `seconds` of virtual time until the target, None where it never came; likewise `updates`. `accuracy`
    at the end, in per cent; `least` and `most` updates that a device sent, and the virtual hours that all of them took.
    """

    method: str
    seed: int
    seconds: float | None
    updates: int | None
    accuracy: float
    least: int
    most: int
    hours: float


@contextmanager
def prepared(data: Path | None, *, quick: bool) -> Iterator[Field]:
    """MNIST's in the folder `data`; without one, digits."""
    if data is None:
        bundle = load_bundle(DIGITS_BUNDLE)
        samples = read_samples("digits", bundle.description)
        yield Field(DIGITS_BUNDLE, bundle, samples, devices=50, updates=200 if quick else 1000)
        return
    digits = read_mnist(data)
    samples = Samples(digits.images.reshape(len(digits.labels), -1), digits.labels, len(digits.labels))
    with tempfile.TemporaryDirectory() as folder:
        export_bundle(BALANCED_RECIPE, Path(folder), tell=lambda _: None)
        yield Field(Path(folder), load_bundle(Path(folder)), samples, devices=100, updates=200 if quick else 1500)


def fleet(devices: int, seed: int) -> list[FleetMember]:
    """Devices that differ in speed alone: their rounds take from a tenth to ten times the median."""
    durations = MEDIAN_ROUND_SECONDS * SPREAD ** np.linspace(-0.5, 0.5, devices)
    guards = GuardSettings(minimum_samples=FEWEST_SAMPLES)
    return [
        FleetMember(
            Conditions(
                training_mflops=FAST,
                start_seconds=float(duration),
                uplink_kbit_s=FAST,
                downlink_kbit_s=FAST,
                latency_ms=0.0,
                samples_per_hour=1.0,
            ),
            guards,
        )
        for duration in np.random.default_rng((seed, 3)).permutation(durations)
    ]


def shared_out(field: Field, seed: int) -> tuple[list[Samples], Samples]:
    """A part for each device, and what is held out."""
    generator = np.random.default_rng((seed, 1))
    order = generator.permutation(len(field.samples))
    held_out, pooled = np.split(order, [round(HELD_OUT_FRACTION * len(order))])
    labels = field.samples.labels[pooled].astype(np.int64)
    parts = dirichlet_parts(labels, field.devices, generator, fewest=FEWEST_SAMPLES, concentration=CONCENTRATION)
    return [field.samples.take(pooled[part]) for part in parts], field.samples.take(held_out)


def simulated(field: Field, plan: SelectionPlan | None, seed: int) -> tuple[Simulation, Sequence[Point]]:
    """One fleet to its end, and its scores on the way."""
    changed = msgspec.structs.replace(field.bundle.description, selection=plan)
    task = parse_description(msgspec.json.encode(changed), "the simulated task")
    parts, held_out = shared_out(field, seed)
    options = Options(
        seed=seed,
        seconds=math.inf,
        updates=field.updates,
        score_every=SCORE_EVERY,
        concurrent=round(TRAINING_AT_A_TIME * field.devices),
        plain=True,
    )
    workload = trained_workload(field.folder, task, parts, held_out)
    simulation = Simulation(fleet(field.devices, seed), Bundle(task, field.bundle.files), workload, options)
    return simulation, simulation.run().history


def smoothed(history: Sequence[Point]) -> list[float]:
    """By point, the mean of the last scores."""
    scores = [point.score for point in history]
    return [statistics.mean(scores[max(0, end - SMOOTHED_POINTS) : end]) for end in range(1, len(scores) + 1)]


def compared(field: Field, methods: Sequence[str], seed: int) -> list[Run]:
    """All methods on the same fleet, with a line for each."""
    found: list[Run] = []
    target = 0.0
    for method in dict.fromkeys([RANDOM, *methods]):
        simulation, history = simulated(field, METHODS[method], seed)
        scores = smoothed(history)
        if method == RANDOM:
            target = TARGET_SHARE * scores[-1]
        reached = next((point for point, score in zip(history, scores, strict=True) if score >= target), None)
        sent = [agent.updates_made for agent in simulation.agents]
        run = Run(
            method,
            seed,
            round(reached.virtual_seconds) if reached else None,
            reached.updates if reached else None,
            round(100 * scores[-1], 2),
            min(sent),
            max(sent),
            round(history[-1].virtual_seconds / 3600, 2),
        )
        found.append(run)
        print(json.dumps({"target": round(100 * target, 2)} | msgspec.to_builtins(run)), flush=True)
    return found


def times_sooner(runs: Sequence[Run]) -> dict[str, list[float | None]]:
    """By method, for each seed, how many times as long `random` takes; None where the target never came."""
    usual = {run.seed: run.seconds for run in runs if run.method == RANDOM}
    found: dict[str, list[float | None]] = {}
    for run in runs:
        base = usual[run.seed]
        ratio = round(base / run.seconds, 2) if run.seconds and base else None
        found.setdefault(run.method, []).append(ratio)
    return found


def main() -> None:
    """Run every method on every seed's fleet, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with the MNIST test images; left out, digits")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--quick", action="store_true", help="few updates")
    given = parser.parse_args()
    started = time.monotonic()
    with prepared(given.data, quick=given.quick) as field:
        runs = [run for seed in given.seeds for run in compared(field, given.methods, seed)]
    about = {"data": "mnist" if given.data else "digits", "devices": field.devices, "updates": field.updates}
    sooner = {"times_sooner": times_sooner(runs), "wall_seconds": round(time.monotonic() - started)}
    print(json.dumps(about | sooner | {"runs": msgspec.to_builtins(runs)}))


if __name__ == "__main__":
    main()
