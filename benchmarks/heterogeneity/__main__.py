"""Fleets that disagree: `python -m benchmarks.heterogeneity --data-dir FOLDER [--only METHOD...] [--small | --quick]`.

`--set` learns other pictures of 28x28 pixels than MNIST's, so that what was chosen on some can be shown on others.

100 devices of unequal speed share MNIST's 10,000 test images, ten train at any time, and every method has the same
number of updates; the one-shot baselines have as many steps, and no version in between. Divisions: Dirichlet(0.1); two
classes a device; and two groups, of which one calls each class like the next one. A fifth of each device's samples is
held out, and every device is tested on its own: with the fleet's model, with that after five steps on its samples, and
with what it answers with. The learning rate of each method is chosen from one grid, on a fleet of another seed, by what
devices answer with. Prints a line for each method, and one JSON object as its last line.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import msgspec

from benchmarks.heterogeneity.divisions import DIVISIONS, devices_of
from benchmarks.heterogeneity.fleet import Scores, run
from benchmarks.heterogeneity.methods import METHODS, Graphs
from benchmarks.mnist import read_mnist
from benchmarks.mnist_fleet import CLIENTS, RECIPE
from benchmarks.zoo.samples.pictures import fashion, notmnist
from bundle_runtime.samples import Samples
from workbench.export.bundle_writer import export_bundle

TUNING_SEED: Final = 100


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is run: the first so many samples on so many devices, and `updates` of each fleet; rates are tried with
    fewer.
    """

    samples: int
    devices: int
    updates: int
    tuning_updates: int
    grid: tuple[float, ...]
    seeds: tuple[int, ...]


WHOLE: Final = Effort(10_000, CLIENTS, 600, 200, (0.03, 0.1, 0.3), (0, 1, 2))
SMALL: Final = Effort(2000, 20, 400, 0, (0.1,), (0, 1))
"""Twenty rounds of a device: enough to find clusters."""
QUICK: Final = Effort(2000, 20, 60, 0, (0.1,), (0,))
"""Shows that it works."""


def _mnist(folder: Path) -> Samples:
    digits = read_mnist(folder)
    return Samples(digits.images, digits.labels)


SETS: Final[Mapping[str, Callable[[Path], Samples]]] = {"mnist": _mnist, "notmnist": notmnist, "fashion": fashion}
"""Of `fashion` there are 2,000 pictures: enough for `--small`."""


class Outcome(msgspec.Struct, frozen=True):
    """Means over the seeds in per cent, and the smallest and largest of `own`; see `Scores`."""

    method: str
    division: str
    learning_rate: float
    shared: float
    adapted: float
    own: float
    own_range: tuple[float, float]
    worst_tenth: float
    calibration_error: float
    refused: float
    clusters: float
    alike: float


class Contest:
    """Runs methods on divisions of the same samples; bundles are exported into `folder`."""

    def __init__(self, samples: Samples, folder: Path, effort: Effort) -> None:
        self._samples = samples
        self._folder = folder
        self._effort = effort
        self._bundles: dict[Graphs, Path] = {}

    def outcome(self, name: str, division: str) -> Outcome:
        """A method's, with the learning rate that served devices best on a fleet of another seed."""
        rate, effort = self._effort.grid[0], self._effort
        if len(effort.grid) > 1:
            tried = {each: self._run(name, division, each, TUNING_SEED, effort.tuning_updates) for each in effort.grid}
            rate = max(tried, key=lambda each: tried[each].own)
        found = [self._run(name, division, rate, seed, effort.updates) for seed in effort.seeds]
        means = {
            field: round(statistics.mean(getattr(each, field) for each in found), 2)
            for field in (
                "shared",
                "adapted",
                "own",
                "worst_tenth",
                "calibration_error",
                "refused",
                "clusters",
                "alike",
            )
        }
        own = [each.own for each in found]
        return Outcome(name, division, rate, own_range=(min(own), max(own)), **means)

    def _run(self, name: str, division: str, rate: float, seed: int, updates: int) -> Scores:
        devices = devices_of(division, self._samples, self._effort.devices, seed)
        method = METHODS[name]
        return run(self._bundle(method.graphs), method, devices, rate, seed, updates=updates)

    def _bundle(self, graphs: Graphs) -> Path:
        if graphs not in self._bundles:
            folder = self._folder / str(len(self._bundles))
            export_bundle(RECIPE, folder, change=graphs.changed, tell=lambda _: None)
            self._bundles[graphs] = folder
        return self._bundles[graphs]


def main() -> None:
    """Run every method on every division, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data-dir", type=Path, required=True, help="folder with a folder for each set, or MNIST's own"
    )
    parser.add_argument("--set", choices=SETS, default="mnist", help="what is learned")
    parser.add_argument("--only", nargs="*", choices=METHODS, default=list(METHODS), help="these methods")
    parser.add_argument("--division", nargs="*", choices=DIVISIONS, default=list(DIVISIONS), help="these divisions")
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument("--small", action="store_true", help="20 devices, 400 updates, two seeds, one learning rate")
    sizes.add_argument("--quick", action="store_true", help="few devices and updates, one seed, one learning rate")
    arguments = parser.parse_args()
    effort = QUICK if arguments.quick else SMALL if arguments.small else WHOLE
    samples = SETS[arguments.set](arguments.data_dir).take(slice(effort.samples))
    if len(samples) < effort.samples:
        parser.error(f"--set {arguments.set} has {len(samples)} pictures, and this takes {effort.samples}: add --small")
    samples = replace(samples, inputs=samples.inputs.reshape(len(samples), -1))
    started = time.monotonic()
    outcomes = []
    with tempfile.TemporaryDirectory() as folder:
        contest = Contest(samples, Path(folder), effort)
        for division in arguments.division:
            for method in arguments.only:
                outcomes.append(contest.outcome(method, division))
                print(msgspec.json.encode(outcomes[-1]).decode(), flush=True)
    found = {"outcomes": msgspec.to_builtins(outcomes), "wall_seconds": round(time.monotonic() - started)}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
