"""What privacy costs in accuracy: of samples and of devices, at several epsilons and seeds.

    python -m benchmarks.privacy_utility --data ../shared/data [--levels samples devices devices_of_100]
        [--epsilons 1 2 4 8 inf] [--seeds 3] [--jobs 2] [--json FILE] [--plot FILE]

Fleets, plans, learning rates and clips are those of `benchmarks.sample_privacy_utility` (100 devices) and
`benchmarks.device_privacy_utility` (1,000, and 100, whose noise is that of a thousand), and no data chose them. The
levels promise different things to different people, and have other fleets: compare each with its own row without noise.
"""

import argparse
import itertools
import json
import multiprocessing
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from benchmarks import device_privacy_utility, sample_privacy_utility
from benchmarks.privacy_plot import write_plots
from benchmarks.private_fleets import NONE, RECIPE, Split, mnist_split
from workbench.export.bundle_writer import export_bundle

Measured = Callable[[Path, float, Split, int], dict[str, object]]

LEVELS: Mapping[str, Measured] = {
    "samples": sample_privacy_utility.measured,
    "devices": device_privacy_utility.measured,
    "devices_of_100": partial(device_privacy_utility.measured, devices=100),
}


def row_of(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Of the rows of one epsilon, one for each seed: how much is right, and how far seeds are apart."""
    right = [each["right"] for each in found]
    same = {key: found[0].get(key) for key in ("epsilon", "noise_multiplier", "tight_epsilon")}
    return same | {"right": fmean(right), "deviation": stdev(right) if len(right) > 1 else None, "of_seeds": right}


def _measured(folder: Path, split: Split, level: str, epsilon: float, seed: int) -> dict[str, object]:
    return LEVELS[level](folder, epsilon, split, seed)


def main() -> None:
    """Print a row for each run as it is found, and all of them as one JSON object at the end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--levels", nargs="*", choices=LEVELS, default=list(LEVELS))
    parser.add_argument("--epsilons", type=float, nargs="*", default=[1.0, 2.0, 4.0, 8.0, NONE])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="runs at once")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    split = mnist_split(options.data)
    seeds = range(1, options.seeds + 1)
    runs = list(itertools.product(options.levels, options.epsilons, seeds))
    with tempfile.TemporaryDirectory() as folder:
        export_bundle(RECIPE, Path(folder))
        with ProcessPoolExecutor(options.jobs, multiprocessing.get_context("fork")) as pool:
            waiting = {run: pool.submit(_measured, Path(folder), split, *run) for run in runs}
            of_run = {run: each.result() for run, each in waiting.items()}
    rows = {
        level: [row_of([of_run[level, epsilon, seed] for seed in seeds]) for epsilon in options.epsilons]
        for level in options.levels
    }
    found = {"delta": 1e-5, "seeds": list(seeds), "levels": rows}
    print(json.dumps(found))
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")
    if options.plot:
        write_plots(rows, options.plot)


if __name__ == "__main__":
    main()
