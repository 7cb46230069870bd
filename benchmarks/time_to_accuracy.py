"""Virtual time until 93 % of MNIST, by strategy: `python -m benchmarks.time_to_accuracy --data-dir FOLDER`.

One JSON object as its last line. Every strategy is tuned in the call on the same grid, with a seed of its own, and then
run with each seed of `SEEDS`. One unit of virtual time is the round of a device of median speed; ten devices train at
any time. The grid's server learning rates are multiples of a strategy's usual one: 0.5 for FedAsync, which mixes at
most all of a model in; 0.1 for ACED, which makes a version of every update instead of every tenth.

The published strategies have plain cross-entropy and dense float32 updates, and their model is the newest version. The
default is what `task.toml` gives who names no setting of `[aggregation]` but the buffer, with sparse updates and the
loss for devices that see few of the classes; "fedbuff_balanced" shows what that loss alone does, and "fleet_buffer"
what the buffer does that follows the fleet, of which a tenth trains at any time here.
"""

import argparse
import json
import statistics
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import msgspec

from benchmarks.bytes_to_accuracy import DENSE_FEDBUFF, GRID, MAX_STALENESS, SEEDS, TUNING_UPDATES, UPDATES
from benchmarks.mnist_fleet import (
    BALANCED_RECIPE,
    DENSE,
    RECIPE,
    TARGET_ACCURACY,
    TRAINING_AT_A_TIME,
    Arena,
    Contender,
    Rates,
    prepared_arena,
    smoothed,
)
from fleet_protocol.aggregation_plan import AggregationPlan
from fleet_protocol.update_plan import UpdatePlan

NEVER = 1e9
"""Seconds: a deadline that no round reaches."""


def in_rounds(over_selection: float) -> Contender:
    """Synchronous rounds of ten reports."""
    plan = AggregationPlan(
        buffer_size=TRAINING_AT_A_TIME,
        strategy="fedavg",
        max_staleness=0,
        round_seconds=NEVER,
        over_selection=over_selection,
    )
    return Contender(DENSE, plan, synchronous=True, as_published=True)


def one_by_one(**settings: object) -> Contender:
    """A version of every update."""
    plan = AggregationPlan(buffer_size=1, max_staleness=MAX_STALENESS, **settings)  # type: ignore[arg-type]
    return Contender(DENSE, plan, as_published=True)


DEFAULT_NAME = "default"
SPARSE = UpdatePlan(keep_fraction=0.05)
DEFAULT = Contender(SPARSE, AggregationPlan(buffer_size=5, max_staleness=MAX_STALENESS))
"""A buffer of half the devices that train at any time, as FedBuff's of 10 is all of them."""

CA2FL = AggregationPlan(buffer_size=10, strategy="ca2fl", max_staleness=MAX_STALENESS)
STRATEGIES: dict[str, tuple[Contender, Path]] = {
    "fedavg_sync": (in_rounds(1.0), RECIPE),
    "fedavg_sync_over_selected": (in_rounds(1.3), RECIPE),
    "fedasync": (one_by_one(strategy="fedasync", server_learning_rate=0.5), RECIPE),
    "fedbuff": (DENSE_FEDBUFF, RECIPE),
    "fedbuff_balanced": (DENSE_FEDBUFF, BALANCED_RECIPE),
    "ca2fl": (Contender(DENSE, CA2FL, as_published=True), RECIPE),
    "aced": (one_by_one(strategy="aced", cached_staleness=MAX_STALENESS, server_learning_rate=0.1), RECIPE),
    "fleet_buffer": (Contender(SPARSE, AggregationPlan(max_staleness=MAX_STALENESS)), BALANCED_RECIPE),
    DEFAULT_NAME: (DEFAULT, BALANCED_RECIPE),
}


class Outcome(msgspec.Struct, frozen=True):
    """Means over the seeds. Where a seed did not reach the target, its whole run counts, and `reached` is false."""

    virtual_seconds: float
    uplink_bytes: int
    updates: float
    accuracy: float
    reached: bool
    rates: Rates


def measure(arena: Arena, contender: Contender, rates: Rates) -> Outcome:
    """Run a contender with every seed."""
    results = [arena.run(contender, rates, seed, UPDATES, stop_at_target=True) for seed in SEEDS]
    ends = [result.summary.reached or result.history[-1] for result in results]
    return Outcome(
        virtual_seconds=round(statistics.mean(end.virtual_seconds for end in ends), 2),
        uplink_bytes=round(statistics.mean(end.uplink_bytes for end in ends)),
        updates=statistics.mean(end.updates for end in ends),
        accuracy=round(statistics.mean(smoothed(result.history, UPDATES) for result in results), 4),
        reached=all(result.summary.reached for result in results),
        rates=rates,
    )


def report(outcomes: Mapping[str, Outcome], wall_seconds: float) -> dict[str, object]:
    """The keys of the last line; `speedup` is how many times faster the default is."""
    ours = outcomes[DEFAULT_NAME].virtual_seconds
    return {
        "target_accuracy": TARGET_ACCURACY,
        "default": DEFAULT_NAME,
        "strategies": msgspec.to_builtins(outcomes),
        "speedup": {name: round(outcome.virtual_seconds / ours, 2) for name, outcome in outcomes.items()},
        "grid": msgspec.to_builtins(GRID),
        "seeds": SEEDS,
        "wall_seconds": round(wall_seconds),
    }


def outcomes_of(data: Path, names: list[str]) -> Iterator[tuple[str, Outcome]]:
    """Tune and run strategies, one after the other."""
    with ExitStack() as stack:
        arenas = {recipe: stack.enter_context(prepared_arena(data, recipe)) for recipe in (RECIPE, BALANCED_RECIPE)}
        for name in names:
            contender, recipe = STRATEGIES[name]
            rates = arenas[recipe].tune(contender, GRID, TUNING_UPDATES)
            yield name, measure(arenas[recipe], contender, rates)


def main() -> None:
    """Tune and run every strategy, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True, help="folder with the MNIST test images (IDX, gzip)")
    parser.add_argument("--only", nargs="*", choices=STRATEGIES, help="besides the default")
    arguments = parser.parse_args()
    names = [DEFAULT_NAME, *(arguments.only if arguments.only is not None else STRATEGIES)]
    started = time.monotonic()
    outcomes = dict[str, Outcome]()
    for name, outcome in outcomes_of(arguments.data_dir, list(dict.fromkeys(names))):
        outcomes[name] = outcome
        print(name, msgspec.json.encode(outcome).decode(), flush=True)
    print(json.dumps(report(outcomes, time.monotonic() - started)))


if __name__ == "__main__":
    main()
