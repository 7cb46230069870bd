"""Clustered split GANs beside plain ones, FedGAN, MD-GAN and pooled pairs, on digits and letters of unlike devices.

`python -m benchmarks.huscf_gan --data ../shared/data` prints a JSON object for each run, and one with all of them as
its last line. The task is `models/mnist_gan`, trained by its exported blocks in this process
(`benchmarks/split_gans/fleet.py`); numbers pass between blocks as float32. For each domain a small CNN is trained on
pictures that the domain's devices draw, and tested on real ones that no device has; `score` judges the drawn pictures
by a CNN trained on real ones. The pair knows twenty classes, of which `pooled_by_domain` alone uses the latter ten.
"""

import argparse
import dataclasses
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.chained_blocks import ExportedTask
from benchmarks.split_gans.classifier import trained_on
from benchmarks.split_gans.contest import Contest, Effort
from benchmarks.split_gans.methods import METHODS
from benchmarks.split_gans.scenario import (
    CLASSES,
    Domain,
    Scenario,
    corrupted,
    nearly_empty,
    read_domains,
    unlike_devices,
)
from benchmarks.split_gans.variant import write_variant
from workbench.export.recipe.recipe import read_recipe
from workbench.recipe_folder import find_recipe

QUICK = Effort(iterations=6, between_federations=2, drawn=200, tested=200)
CHANGES: dict[str, Callable[[Scenario, int], Scenario]] = {
    "unlike": lambda scenario, _: scenario,
    "corrupted": corrupted,
    "nearly_empty": nearly_empty,
}


def prepared(recipe_folder: Path, domains: list[Domain], effort: Effort) -> Contest:
    """Export the pair, and train who judges."""
    with tempfile.TemporaryDirectory() as folder:
        recipe = read_recipe(write_variant(recipe_folder, Path(folder) / "pair", {}, CLASSES * len(domains)))
        exported = ExportedTask.of(recipe)
    judges = {domain.name: trained_on(domain.training, 0) for domain in domains}
    return Contest(recipe, exported, judges, effort)


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder with the data sets")
    parser.add_argument("--methods", choices=METHODS, nargs="+", default=list(METHODS), help="these alone")
    parser.add_argument("--scenarios", choices=CHANGES, nargs="+", default=["unlike"], help="what devices have")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of devices, batches and draws")
    parser.add_argument("--rates", type=float, nargs="+", default=[1e-3], help="learning rates of Adam")
    parser.add_argument("--iterations", type=int, help="of each device")
    parser.add_argument("--quick", action="store_true", help="a few iterations and pictures")
    parser.add_argument("--recipe", type=Path, default=find_recipe("mnist_gan"), help="folder of the pair")
    options = parser.parse_args()
    torch.set_num_threads(1)
    effort = QUICK if options.quick else Effort()
    if options.iterations:
        effort = dataclasses.replace(effort, iterations=options.iterations)
    domains = read_domains(options.data, effort.tested)
    contest = prepared(options.recipe, domains, effort)
    found = []
    for name in options.methods:
        for seed in options.seeds:
            for scenario in options.scenarios:
                changed = CHANGES[scenario](unlike_devices(domains, seed), seed)
                for rate in options.rates:
                    result = contest.run(name, METHODS[name], changed, learning_rate=rate, seed=seed)
                    found.append(dataclasses.asdict(result))
                    print(json.dumps(found[-1]), flush=True)
    print(json.dumps({"effort": dataclasses.asdict(effort), "runs": found}))


if __name__ == "__main__":
    main()
