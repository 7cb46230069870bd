"""Clustered split GANs beside plain ones, FedGAN, MD-GAN and pooled pairs, on digits and letters of unlike devices.

`python -m benchmarks.huscf_gan --data ../shared/data` prints a JSON object for each run, and one with all of them as
its last line. The task is `models/mnist_gan`, trained by its exported blocks in this process
(`benchmarks/split_gans/fleet.py`); `--between` says how numbers pass between devices and their helper. For each domain
a small CNN is trained on pictures that the domain's devices draw, and tested on real ones that no device has; `score`
judges the drawn pictures by a CNN trained on real ones. The pair knows twenty classes, of which `pooled_by_domain`
alone uses the latter ten. Where a run diverges, it says so, and the others go on. `--keep FOLDER` writes the pair as
`FOLDER/bundle` and what each run trained, for `edgeflock generate --task FOLDER/bundle --weights ...`.
"""

import argparse
import dataclasses
import itertools
import json
import multiprocessing
import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import torch

from benchmarks.chained_blocks import ExportedTask
from benchmarks.split_gans.contest import Contest, Effort, Result
from benchmarks.split_gans.judges import Judges
from benchmarks.split_gans.methods import COMPARED, METHODS
from benchmarks.split_gans.scenario import (
    CLASSES,
    Domain,
    Scenario,
    corrupted,
    nearly_empty,
    read_domains,
    unlike_devices,
)
from benchmarks.split_gans.trainee import Training
from benchmarks.split_gans.variant import write_variant
from benchmarks.wide_pair.described import counted_task
from fleet_protocol.split_plan import WireFormat
from workbench.export.bundle_writer import export_bundle
from workbench.export.recipe.recipe import read_recipe
from workbench.recipe_folder import find_recipe

QUICK = Effort(iterations=6, between_federations=2, between_scores=3, drawn=200, drawn_for_score=100, tested=200)
CHANGES: dict[str, Callable[[Scenario, int], Scenario]] = {
    "unlike": lambda scenario, _: scenario,
    "corrupted": corrupted,
    "nearly_empty": nearly_empty,
}


@dataclass(frozen=True, slots=True)
class Order:
    """A run that is asked for."""

    method: str
    scenario: str
    training: Training


def prepared(
    recipe_folder: Path, judges: Judges, effort: Effort, *, kept: Path | None = None, norm: str | None = None
) -> Contest:
    """Export the pair, for those who draw with what is kept too.

    `norm` is how the generator normalises, if not as the recipe says.

    Raises:
        FileExistsError: the folder for what is kept is there already.
    """
    with tempfile.TemporaryDirectory() as folder:
        constants = {"NORM": norm} if norm else {}
        variant = write_variant(recipe_folder, Path(folder) / "pair", constants, CLASSES * len(judges))
        recipe = read_recipe(variant)
        exported = ExportedTask.of(recipe)
        if kept:
            kept.mkdir(parents=True)
            export_bundle(variant, kept / "bundle", tell=lambda _: None)
    return Contest(recipe, exported, counted_task(recipe), judges, effort, kept)


def results(contest: Contest, domains: list[Domain], orders: list[Order], jobs: int) -> Iterator[Result]:
    """As they come, of so many processes at once, which have what this one has."""

    def run(number: int) -> Result:
        order = orders[number]
        scenario = CHANGES[order.scenario](unlike_devices(domains, order.training.seed), order.training.seed)
        return contest.run(order.method, METHODS[order.method], scenario, order.training)

    if jobs == 1:
        yield from map(run, range(len(orders)))
        return
    _Forked.run = run
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("fork"), max_tasks_per_child=None) as pool:
        for done in as_completed([pool.submit(_Forked.call, number) for number in range(len(orders))]):
            yield done.result()


class _Forked:
    """What a forked process finds."""

    run: Callable[[int], Result]

    @classmethod
    def call(cls, number: int) -> Result:
        """Run it there."""
        return cls.run(number)


def main() -> None:
    """Measure, print."""
    options = _options()
    torch.set_num_threads(1)
    effort = QUICK if options.quick else Effort()
    if options.iterations:
        effort = dataclasses.replace(effort, iterations=options.iterations)
    domains = read_domains(options.data, effort.tested)
    asked = itertools.product(
        options.seeds, options.methods, options.scenarios, options.rates, options.between, options.noise
    )
    each_once = dict.fromkeys(
        Order(method, scenario, Training(effort.iterations, rate, seed, wire, options.lockstep, noise))
        for seed, method, scenario, rate, wire, noise in asked
    )
    found = []
    with tempfile.TemporaryDirectory() as folder:
        judges = Judges(Path(folder), {domain.name: domain.training for domain in domains})
        with judges.trained_beside():  # a run trains until a score is due, whose judge is not ready
            contest = prepared(options.recipe, judges, effort, kept=options.keep, norm=options.norm)
            for result in results(contest, domains, list(each_once), options.jobs):
                found.append(dataclasses.asdict(result))
                print(json.dumps(found[-1]), flush=True)
    print(json.dumps({"effort": dataclasses.asdict(effort), "runs": found}))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder with the data sets")
    parser.add_argument("--methods", choices=METHODS, nargs="+", default=list(COMPARED), help="these alone")
    parser.add_argument("--scenarios", choices=CHANGES, nargs="+", default=["unlike"], help="what devices have")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of devices, batches and draws")
    parser.add_argument("--rates", type=float, nargs="+", default=[1e-3], help="learning rates of Adam")
    parser.add_argument(
        "--between", choices=get_args(WireFormat), nargs="+", default=["float32"], help="between blocks"
    )
    parser.add_argument(
        "--noise", type=float, nargs="+", default=[0.0], help="activation_noise, in deviations of what leaves a device"
    )
    parser.add_argument("--lockstep", action="store_true", help="helpers wait for all devices, as published")
    parser.add_argument("--iterations", type=int, help="of each device")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="runs at once")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="new folder for what is trained")
    parser.add_argument("--quick", action="store_true", help="a few iterations and pictures")
    parser.add_argument("--norm", choices=["batch", "group"], help="how the generator normalises; as the recipe says")
    parser.add_argument("--recipe", type=Path, default=find_recipe("mnist_gan"), help="folder of the pair")
    options = parser.parse_args()
    if options.jobs < 1:
        parser.error(f"--jobs {options.jobs}: at least one run at once")
    return options


if __name__ == "__main__":
    main()
