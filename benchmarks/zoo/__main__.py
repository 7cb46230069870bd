"""How much a recipe learns that has nothing but its model, its loss and its samples: `python -m benchmarks.zoo`.

Ten tasks, shared out in four ways over fleets of 8, 40 and 400 devices; everything else is the default under test. Each
case trains for real, in virtual time, and is measured against pooled training of the same model with the best of three
learning rates. One JSON object a case goes to standard error and to `--out`, from where a run that was stopped goes on;
the last line of standard output sums them up. `python -m benchmarks.zoo.table FILE` makes tables of `--out`.
"""

import argparse
import math
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec

from benchmarks.zoo.bundles import bundle_folder
from benchmarks.zoo.case import USUAL_UPDATES, Length
from benchmarks.zoo.partitions import PARTITIONS
from benchmarks.zoo.plan import cases_of
from benchmarks.zoo.results import Results
from benchmarks.zoo.rules import RULES
from benchmarks.zoo.run import Entry, pool_of, run_all
from benchmarks.zoo.summary import summarise
from benchmarks.zoo.tasks import DATA, EVERY_TASK, SHORT_TASKS, TASKS, read_split
from bundle_runtime.bundle_folder import load_bundle
from fleet_protocol.errors import ConfigurationError

DEVICES = (8, 40, 400)
SHORT_DEVICES, SHORT_UPDATES = (8,), 160
CACHE = Path("build") / "zoo"
EVERY = "all"
"""In `--without`: each of them, one at a time."""


def main() -> None:
    """Run what was asked for, and print. What can't be read is one line, and exit code 2."""
    parser = _parser()
    options = parser.parse_args()
    try:
        _run(options)
    except (ConfigurationError, OSError) as error:
        parser.error(str(error))


def _run(options: argparse.Namespace) -> None:
    length = Length(options.days, options.updates)
    entries = list(_entries(options))
    if not entries:
        raise ConfigurationError("no case: numbers to learn have no classes; add another of --partitions or --tasks")
    outcomes = []
    for outcome in run_all(entries, length, Results(options.out), options.jobs):
        print(msgspec.json.encode(outcome).decode(), file=sys.stderr, flush=True)
        outcomes.append(outcome)
    print(msgspec.json.encode(summarise(outcomes)).decode())


def _entries(options: argparse.Namespace) -> Iterator[Entry]:
    """The cases, each with its bundle, which is exported here, and with what it is measured against."""
    for task in options.tasks:
        splits = {seed: read_split(task, seed, options.data_dir) for seed in options.seeds}
        folder = bundle_folder(task, options.cache, {})
        description = load_bundle(folder).description
        asked = RULES if EVERY in options.without else options.without
        working = [name for name in asked if RULES[name].works_in(description)]
        without = {name: bundle_folder(task, options.cache, RULES[name].settings) for name in working}
        steps = description.training.steps * (options.updates or USUAL_UPDATES)
        for seed, split in splits.items():
            pool = pool_of(task, seed, folder, options.data_dir, steps)
            cases = cases_of(
                task, description.label.kind, split, partitions=options.partitions, devices=options.devices, seed=seed
            )
            for case in cases:
                yield Entry(case, folder, pool)
                for name, changed in without.items():
                    yield Entry(msgspec.structs.replace(case, without=name), changed, pool)


def _count(text: str) -> int:
    if (count := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number from 1 up")
    return count


def _length(text: str) -> float:
    if not 0 < (length := float(text)) < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a length of time above 0")
    return length


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    short = "--short" in sys.argv
    parser.add_argument(
        "--short", action="store_true", help="three small tasks, 8 devices, few updates: under a minute"
    )
    parser.add_argument("--tasks", nargs="+", choices=EVERY_TASK, default=SHORT_TASKS if short else list(TASKS))
    parser.add_argument("--partitions", nargs="+", choices=PARTITIONS, default=list(PARTITIONS))
    parser.add_argument("--devices", nargs="+", type=_count, default=SHORT_DEVICES if short else DEVICES)
    parser.add_argument(
        "--without", nargs="+", choices=[*RULES, EVERY], default=(), help="also without each of these rules"
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--days", type=_length, help="of virtual time; else as many as a fleet needs for 1,000 updates")
    parser.add_argument("--updates", type=_count, default=SHORT_UPDATES if short else None, help="at most so many")
    parser.add_argument("--jobs", type=_count, default=1, help="processes")
    parser.add_argument("--out", type=Path, help="file that results are appended to, and that a run goes on from")
    parser.add_argument("--cache", type=Path, default=CACHE, help="folder for bundles and pooled training")
    parser.add_argument("--data-dir", type=Path, default=DATA, help="folder with the data sets")
    return parser


if __name__ == "__main__":
    main()
