"""Six devices of two strengths and two domains train clustered generators over a real Mosquitto with one helper.

`python -m benchmarks.live_gan --data ../shared/data --disturbed` starts broker, coordinator, helper and agents as they
ship, three devices with the deepest cut and three that keep blocks 2 and 4, and lets them train so many rounds; then
the same again while a device, the helper and the broker are killed (-9) and started again. The pictures that each
domain's cluster draws are judged as `benchmarks.huscf_gan` judges. It prints a JSON object for each run, and one with
all of them as its last line. `lost` and `duplicated` of `audit` must be 0.
"""

import argparse
import dataclasses
import json
import signal
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.live_gans.devices import six_devices
from benchmarks.live_gans.disturbances import IN_ORDER
from benchmarks.live_gans.judging import Judges
from benchmarks.live_gans.pair_bundle import write_short_pair
from benchmarks.live_gans.run import LiveRun, Result
from benchmarks.split_gans.scenario import read_domains

BUFFER = 3
"""Devices' updates in a version: nobody waits for the slowest three."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How long is trained, and on how much is judged."""

    rounds: int = 240
    steps: int = 25
    drawn: int = 6000
    tested: int = 2000


QUICK = Effort(rounds=18, steps=4, drawn=200, tested=200)


def tell(words: str) -> None:
    """How far it is."""
    print(words, file=sys.stderr, flush=True)


def accuracy_lost(runs: Sequence[Result]) -> list[dict[str, float]]:
    """By domain, of each disturbed run against the undisturbed one of its seed, if any: positive where it is worse."""
    plain = {run.seed: run for run in runs if not run.disturbances}
    return [
        {
            name: round(plain[run.seed].domains[name].scores.accuracy - judged.scores.accuracy, 4)
            for name, judged in run.domains.items()
        }
        for run in runs
        if run.disturbances and run.seed in plain
    ]


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder with the data sets")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of devices and draws")
    parser.add_argument("--rounds", type=int, help="of all devices together, in each run")
    kills = parser.add_mutually_exclusive_group()
    kills.add_argument("--disturbed", action="store_true", help="each run again, with kills in the middle")
    kills.add_argument("--disturbed-alone", action="store_true", help="with kills, and not without")
    parser.add_argument("--quick", action="store_true", help="a few versions, steps and pictures")
    options = parser.parse_args()
    torch.set_num_threads(1)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended, with its fleet"))
    effort = QUICK if options.quick else Effort()
    if options.rounds:
        effort = dataclasses.replace(effort, rounds=options.rounds)
    domains = read_domains(options.data, effort.tested)
    judges = Judges.of(domains, effort.drawn)
    wanted = [IN_ORDER] if options.disturbed_alone else [(), IN_ORDER] if options.disturbed else [()]
    runs: list[Result] = []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        bundle = write_short_pair(folder / "pair", steps=effort.steps, buffer_size=BUFFER)
        for seed in options.seeds:
            live = LiveRun(bundle, folder / "pair", six_devices(domains, seed), effort.rounds, seed, tell)
            for disturbances in wanted:
                runs.append(live.run(folder / f"run-{len(runs)}", judges, disturbances))
                print(json.dumps(dataclasses.asdict(runs[-1])), flush=True)
    runs_told = [dataclasses.asdict(run) for run in runs]
    print(json.dumps({"effort": dataclasses.asdict(effort), "runs": runs_told, "accuracy_lost": accuracy_lost(runs)}))


if __name__ == "__main__":
    main()
