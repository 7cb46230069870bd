"""Bytes of a step of `models/mnist_gan` at the published widths (arXiv 2507.12979) and 64 rows, for each of its cuts.

`python -m benchmarks.split_pair_bytes --data ../shared/data` prints one JSON object as its last line: means of the last
steps, from real messages of the shipped codec. As the recipe's graphs go, each of both passes of a step goes forward
through all blocks, on made and real pictures, and all the way back.
"""

import argparse
import importlib.util
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import msgspec
import numpy as np

from benchmarks.mnist import read_mnist
from benchmarks.wide_pair.described import BATCH, wide_folder
from benchmarks.wide_pair.passing_bytes import Formats, PairModule, Pass, TrainedPair, bytes_of_cuts
from fleet_protocol.split_plan import SplitPlan
from fleet_protocol.task_description import TaskDescription
from workbench.export.blocks.division import divide
from workbench.export.recipe.recipe import read_recipe
from workbench.export.task_description import described

FORMATS = {
    "float32": Formats("float32", "float32"),
    "int8": Formats("int8", "int8"),
    "int8, gradients int4": Formats("int8", "int4"),
}
PUBLISHED_LEAST_MB = 32.5
"""With float32, where the discriminator's pass and the generator's share one generator pass."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What `main` is told."""

    data: Path
    steps: int
    measured: int
    seed: int


def main() -> None:
    """Train, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder that has mnist in it")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--measured", type=int, default=4, help="of the steps, the last ones")
    parser.add_argument("--seed", type=int, default=0)
    found = report(Settings(**vars(parser.parse_args())))
    print(json.dumps(found))


def report(settings: Settings) -> dict[str, Any]:
    """By format and cut: megabytes to the helper, back, and both."""
    with wide_folder() as folder:
        model = cast(PairModule, _module(folder / "model.py"))
        recipe = read_recipe(folder)
    task = described(recipe, {}, {}, division=divide(recipe, recipe.task.split.points if recipe.task.split else []))
    plan = msgspec.convert(task.split, SplitPlan)
    steps = [
        {name: bytes_of_cuts(plan, step, formats) for name, formats in FORMATS.items()}
        for step in _last_steps(settings, model, task)
    ]
    formats = {name: _means([step[name] for step in steps]) for name in FORMATS}
    return {
        "rows": BATCH,
        "steps": settings.steps,
        "published_least_mb": PUBLISHED_LEAST_MB,
        "least_mb": {name: min(cuts.items(), key=lambda each: each[1]["both"]) for name, cuts in formats.items()},
        "cuts": formats,
    }


def _last_steps(settings: Settings, model: PairModule, task: TaskDescription) -> Iterator[list[Pass]]:
    """The passes of each measured step, one step at a time: they are hundreds of megabytes."""
    digits = read_mnist(settings.data)
    points = [block.point for block in msgspec.convert(task.split, SplitPlan).blocks[:-1]]
    pair = TrainedPair(model, points, task.training.learning_rate, settings.seed)
    draw = np.random.default_rng(settings.seed)
    for number in range(settings.steps):
        rows = draw.choice(len(digits.labels), BATCH, replace=False)
        step = list(pair.step(digits.images[rows], digits.labels[rows].astype(np.float32).reshape(-1, 1)))
        if number >= settings.steps - settings.measured:
            yield step


def _means(of_steps: Sequence[dict[str, tuple[int, int]]]) -> dict[str, dict[str, float]]:
    """In megabytes."""
    means = {}
    for cut in of_steps[0]:
        up, down = (float(np.mean([step[cut][way] for step in of_steps])) / 1e6 for way in (0, 1))
        means[cut] = {"up": round(up, 3), "down": round(down, 3), "both": round(up + down, 3)}
    return means


def _module(path: Path) -> ModuleType:
    specification = importlib.util.spec_from_file_location("wide_pair_model", path)
    if specification is None or specification.loader is None:
        raise ImportError(f"{path} is no module")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


if __name__ == "__main__":
    main()
