"""The shipped cut planner on the published fleet (arXiv 2507.12979): 80 devices of seven profiles and one helper.

`python -m benchmarks.split_planning_published` prints one JSON object as its last line: seconds of an iteration under
the published latency model, in several readings, by every plan, by both searches, and as published; then, in the
planner's own model with `models/mnist_gan` at the paper's widths, how many steps all devices make in an hour, each by
itself and in lockstep, with no device slower, and with one of the weakest or of a middling profile ten times slower.
"""

import argparse
import itertools
import json
from typing import Any

from benchmarks.published_latency import AS_PUBLISHED, PROFILES, READINGS, Reading, devices_of
from benchmarks.wide_pair.described import BATCH, counted_task, wide_recipe
from benchmarks.wide_pair.lockstep import hourly_steps, members, planned, published_cuts
from benchmarks.wide_pair.published_fleet import PublishedFleet, exact_seconds
from fleet_protocol.task_description import TaskDescription
from workbench.split_planning.coordinate_search import search_by_coordinates
from workbench.split_planning.evolution import Evolution, evolve
from workbench.split_planning.timeline import Conditions

DEVICES, EXTRA = 80, (0, 1, 2)
"""One more device of these profiles, as 80 is no multiple of seven; the paper draws them."""
PUBLISHED_SECONDS = 7.68
TIMES_SLOWER = 10.0
SLOWER: tuple[int | None, ...] = (None, 0, 3)
"""Of which profile one device is that."""
SECONDS, SPREAD = 900.0, 0.1
"""Of virtual time, and of each computing time."""


def main() -> None:
    """Search, simulate, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    how = Evolution(seed=parser.parse_args().seed)
    found = {"published_model": published_model(how), "whole_model": whole_model(counted_task(wide_recipe()), how)}
    print(json.dumps(found))


def published_model(how: Evolution) -> dict[str, Any]:
    """Seconds of an iteration."""
    choices = list(itertools.combinations(range(len(PROFILES)), len(EXTRA)))
    of_choices = [exact_seconds(AS_PUBLISHED, devices_of(extra, DEVICES)) for extra in choices]
    return {
        "published_seconds": PUBLISHED_SECONDS,
        "readings": {reading.name: _searched(reading, how) for reading in READINGS},
        "by_whose_devices_are_one_more": [round(min(of_choices), 3), round(max(of_choices), 3)],
    }


def _searched(reading: Reading, how: Evolution) -> dict[str, float]:
    counts = devices_of(EXTRA, DEVICES)
    fleet = PublishedFleet(reading, counts)
    plans = {
        "coordinate": search_by_coordinates(fleet),
        "evolutionary": evolve(fleet, how),
    }
    seconds = {name: fleet.score(fleet.shares(plan)) for name, plan in plans.items()}
    return {name: round(each, 4) for name, each in {"exact": exact_seconds(reading, counts), **seconds}.items()}


def whole_model(task: TaskDescription, how: Evolution) -> dict[str, Any]:
    """Steps of all devices in an hour of virtual time."""
    cases = [_against_lockstep(task, slow, how) for slow in SLOWER]
    return {"rows": BATCH, "virtual_seconds": SECONDS, "spread": SPREAD, "cases": cases}


def _against_lockstep(task: TaskDescription, slow: int | None, how: Evolution) -> dict[str, Any]:
    fleet = members(devices_of(EXTRA, DEVICES), slow, TIMES_SLOWER)
    searched, cuts = planned(task, fleet, how)
    alone = hourly_steps(task, fleet, cuts, Conditions(SECONDS, spread=SPREAD, seed=how.seed))
    lockstep = {
        name: hourly_steps(task, fleet, each, Conditions(SECONDS, lockstep=True, spread=SPREAD, seed=how.seed))
        for name, each in (("planned", cuts), ("published", published_cuts(task, fleet)))
    }
    return {
        "slow_profile": slow,
        "steps_an_hour": round(alone),
        "steps_an_hour_in_lockstep": {name: round(each) for name, each in lockstep.items()},
        "times": round(alone / max(lockstep.values()), 2),
        "searches": {each.search: round(each.seconds, 4) for each in searched.found},
        "step_mb": round(searched.found[0].step_bytes / 1e6, 2),
    }


if __name__ == "__main__":
    main()
