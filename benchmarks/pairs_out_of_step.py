"""What becomes of a pair of generator and discriminator where devices are not in step with each other.

`python -m benchmarks.pairs_out_of_step --data ../shared/data` trains `models/mnist_gan` on ten devices with digits or
letters, in one process: all in step, each version the mean of all; and as two halves whose rounds begin half a round
apart, each version moved by `rate` times what one half has changed. It prints a JSON object for each run, and one with
all of them as its last line: per cent of 2,000 real pictures of each domain that a small CNN reads right which has
seen nothing but what the domain's devices draw with the newest version.
"""

import argparse
import itertools
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from benchmarks.chained_blocks import ExportedTask
from benchmarks.split_gans.classifier import trained_on
from benchmarks.split_gans.drawing import Painter
from benchmarks.split_gans.method import Method, by_cut, devices, nothing
from benchmarks.split_gans.out_of_step import FleetOutOfStep
from benchmarks.split_gans.scenario import SHALLOWEST, Domain, read_domains, unlike_devices
from benchmarks.split_gans.trainee import Training
from workbench.export.recipe.recipe import Recipe, read_recipe
from workbench.recipe_folder import find_recipe

DRAWN, TESTED = 3000, 2000
IN_STEP = Method(devices, by_cut, nothing)
"""Who draws."""


@dataclass(frozen=True, slots=True)
class Run:
    """`right` in per cent by domain; None where numbers were not finite."""

    shifts: int
    rate: float
    seed: int
    steps: int
    right: dict[str, float] | None


def run(recipe: Recipe, exported: ExportedTask, domains: list[Domain], order: Run) -> Run:
    """Train, draw, judge."""
    scenario = unlike_devices(domains, order.seed)
    scenario = replace(scenario, devices=[replace(each, cut=SHALLOWEST) for each in scenario.devices])
    training = Training(order.steps, recipe.task.training.learning_rate, order.seed)
    fleet = FleetOutOfStep(exported, scenario.devices, training, shifts=order.shifts, rate=order.rate)
    if not fleet.train(recipe.task.training.steps):
        return order
    painter, found = Painter(recipe, IN_STEP, scenario, order.seed), {}
    for place, domain in enumerate(domains):
        reader = trained_on(painter.pictures(fleet.weights, place, DRAWN), order.seed)
        read = reader.shares(domain.tested.pictures).argmax(axis=1)
        found[domain.name] = round(100 * float((read == domain.tested.classes).mean()), 1)
    return replace(order, right=found)


def main() -> None:
    """Measure, print."""
    options = _options()
    torch.set_num_threads(1)
    recipe, domains = read_recipe(find_recipe("mnist_gan")), read_domains(options.data, TESTED)
    exported, runs = ExportedTask.of(recipe), []
    asked = [(1, 1.0), *((options.shifts, rate) for rate in options.rates)]
    for seed, (shifts, rate) in itertools.product(options.seeds, asked):
        runs.append(asdict(run(recipe, exported, domains, Run(shifts, rate, seed, options.steps, None))))
        print(json.dumps(runs[-1]), flush=True)
    print(json.dumps({"runs": runs}))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder with the data sets")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of devices, batches and draws")
    parser.add_argument("--rates", type=float, nargs="+", default=[1.0, 0.5], help="of the server, out of step")
    parser.add_argument("--shifts", type=int, default=2, help="of devices that are not in step")
    parser.add_argument("--steps", type=int, default=300, help="of each device")
    return parser.parse_args()


if __name__ == "__main__":
    main()
