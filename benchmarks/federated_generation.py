"""Models from prompts that devices tell once, against rounds: spoken digits by synthesised speech, letters by fonts.

`python -m benchmarks.federated_generation --data-dir FOLDER [--scenario NAME] [--skew NAME...] [--quick] [--plot FILE]`
(after `make speech-embedding` for the audio) prints a JSON object for each division of the data among devices, and one
with all of them as its last line.

`audio`: a head of 970 parameters behind `models/speech_commands`; 30 devices share recordings of six speakers, takes 5
and later; takes 0 to 4 are the test. `image`: `models/mnist_cnn` from scratch; ten devices share 5,000 pictures of the
letters A to J (notMNIST), the other 5,000 are the test. `scratch`: a network for words from scratch, which
`benchmarks/speech_from_scratch.py` tells about; `strangers`: likewise, tested on speakers of whom no device has
recordings. Devices have the data at random (`iid`), by a Dirichlet distribution of
0.5, or of one class each. What follows is of `audio` and `image`.

`prompts`: devices tell which classes they have, and one style, the same for all; the server synthesises samples of each
class, and trains on them. `moments` and `instance`: features are drawn by what devices tell of theirs. `both`: trained
on `instance` and on what was synthesised. `rounds`: every device trains in each round, by the shipped training, codec
and aggregation, from the bundle's untrained version, at the rate that does best on the test set within the first
rounds, an advantage over the prompts, whose rate is the recipe's. `then_rounds`: five rounds from the prompts' version,
at the recipe's rate, with and without replay of the synthetic data at the server behind each. Bytes are of signed
messages up.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec
import numpy as np

from benchmarks.generation_plot import write_plots
from benchmarks.generation_scenarios import MakeScenario, Scenario, audio, image
from benchmarks.prompted_fleet import FleetPrompts, RoundResult, play_rounds, synthetic_samples, tell
from benchmarks.speech_from_scratch import QUICK, STRANGERS, Effort, FromScratch, read
from bundle_runtime.runner import BundleRunner
from bundle_runtime.samples import Samples
from edge_agent.core.prompt_settings import PromptSettings
from fleet_protocol.codec.sparse import FloatVector
from fleet_protocol.prompt_plan import Level
from prompt_synthesis.training import SyntheticTrainer

SKEWS = ("iid", "dirichlet_0.5", "one_class")
FEW_ROUNDS = 5
REPLAY_EPOCHS = 2
TUNING_ROUNDS = 5


@dataclass(frozen=True, slots=True)
class Contest:
    """One division of a scenario's data."""

    scenario: Scenario
    parts: list[Samples]
    folder: Path

    def report(self, skew: str) -> dict[str, object]:
        """All methods."""
        scenario = self.scenario
        told = {level: self._told(level) for level in ("class", "moments", "instance")}
        spoken = self._synthesised("class", told["class"], scenario.generator)
        trained = self._trained(spoken)
        accuracy = self._accuracy(trained)
        features = {level: self._synthesised(level, told[level], "features") for level in ("moments", "instance")}
        both = Samples(
            np.concatenate([spoken.inputs, features["instance"].inputs]),
            np.concatenate([spoken.labels, features["instance"].labels]),
        )
        rate, rounds = self._rounds()
        one_update = rounds[0].sent_bytes // len(self.parts)
        found: dict[str, object] = {
            "scenario": scenario.name,
            "skew": skew,
            "devices": len(self.parts),
            "prompts": {"accuracy": accuracy} | _bytes_of(told["class"]),
            "update_bytes": one_update,
            "moments": {"accuracy": self._accuracy(self._trained(features["moments"]))} | _bytes_of(told["moments"]),
            "instance": {"accuracy": self._accuracy(self._trained(features["instance"]))} | _bytes_of(told["instance"]),
            "both": {"accuracy": self._accuracy(self._trained(both))} | _bytes_of(told["instance"]),
            "rounds": {"learning_rate": rate} | _after(rounds) | _reached(rounds, accuracy),
            "then_rounds": self._then_rounds(trained, spoken, replays=False),
            "then_rounds_with_replay": self._then_rounds(trained, spoken, replays=True),
        }
        return found

    def _told(self, level: str) -> FleetPrompts:
        owner = PromptSettings(most="instance", style=self.scenario.style)
        return tell(self.scenario.with_level(msgspec.convert(level, Level)), self.parts, owner)

    def _synthesised(self, level: str, told: FleetPrompts, generator: str) -> Samples:
        bundle = self.scenario.with_level(msgspec.convert(level, Level))
        folder = self.folder / f"{level}-{generator}"
        return synthetic_samples(bundle, told, folder, generator=generator, count=self.scenario.count, seed=0)

    def _trained(self, samples: Samples, start: FloatVector | None = None, epochs: int = 0) -> FloatVector:
        trainer = SyntheticTrainer(self.scenario.with_level("class"), 1)
        weights = self.scenario.first if start is None else start
        return trainer.train(weights, samples, epochs or self.scenario.epochs, 0, lambda _: None).weights

    def _accuracy(self, weights: FloatVector) -> float:
        bundle = self.scenario.bundle
        found = BundleRunner(bundle.description, bundle.files).evaluate_features(weights, self.scenario.test).accuracy
        return round(found or 0.0, 4)

    def _rounds(self) -> tuple[float, list[RoundResult]]:
        """From scratch, at the rate that does best on the test within the first rounds."""
        scenario = self.scenario

        def played(rate: float, count: int) -> list[RoundResult]:
            bundle = scenario.with_level("class", rate)
            return play_rounds(bundle, self.parts, scenario.test, scenario.first, count)

        rates = scenario.rates
        tried = {rate: played(rate, TUNING_ROUNDS)[-1].accuracy for rate in rates} if len(rates) > 1 else {rates[0]: 0}
        best = max(tried, key=lambda rate: tried[rate])
        return best, played(best, scenario.rounds)

    def _then_rounds(self, start: FloatVector, synthetic: Samples, *, replays: bool) -> dict[str, object]:
        def replay(weights: FloatVector, _: int) -> FloatVector:
            return self._trained(synthetic, weights, REPLAY_EPOCHS)

        bundle = self.scenario.with_level("class")
        after = replay if replays else None
        found = play_rounds(bundle, self.parts, self.scenario.test, start, FEW_ROUNDS, after_round=after)
        return {"accuracies": [round(each.accuracy, 4) for each in found], "bytes": found[-1].sent_bytes}


def _bytes_of(told: FleetPrompts) -> dict[str, object]:
    return {"message_bytes": max(told.message_bytes), "bytes_of_all": sum(told.message_bytes)}


def _after(rounds: list[RoundResult]) -> dict[str, object]:
    shown = [number for number in (1, 2, 5, 10, 20, 50, 100) if number <= len(rounds)]
    return {
        "accuracy_after": {str(number): round(rounds[number - 1].accuracy, 4) for number in shown},
        "bytes_after": {str(number): rounds[number - 1].sent_bytes for number in shown},
        "best": round(max(each.accuracy for each in rounds), 4),
    }


def _reached(rounds: list[RoundResult], accuracy: float) -> dict[str, object]:
    """When rounds are first as good as the prompts; None where they never are."""
    number = next((place for place, each in enumerate(rounds, 1) if each.accuracy >= accuracy), None)
    return {
        "first_as_good_as_prompts": number,
        "bytes_until_then": rounds[number - 1].sent_bytes if number else None,
    }


def _backed(make: MakeScenario, options: argparse.Namespace) -> Iterator[dict[str, object]]:
    with tempfile.TemporaryDirectory() as folder:
        scenario = make(options.data_dir, Path(folder) / "bundle", quick=options.quick)
        for skew in options.skew:
            yield Contest(scenario, scenario.parts(skew), Path(folder) / skew).report(skew)


def _scratch(name: str, strangers: Sequence[int], options: argparse.Namespace) -> Iterator[dict[str, object]]:
    contest = FromScratch(name, read(options.data_dir, strangers), QUICK if options.quick else Effort())
    return map(contest.report, options.skew)


SCENARIOS: Mapping[str, Callable[[argparse.Namespace], Iterator[dict[str, object]]]] = {
    "audio": partial(_backed, audio),
    "image": partial(_backed, image),
    "scratch": partial(_scratch, "scratch", ()),
    "strangers": partial(_scratch, "strangers", STRANGERS),
}
"""A report for each division of the data that is asked for."""


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True, help="folder with spoken_digits/ and notmnist/")
    parser.add_argument("--scenario", choices=SCENARIOS, help="this one alone")
    parser.add_argument("--skew", choices=SKEWS, nargs="+", default=SKEWS, help="these divisions alone")
    parser.add_argument("--quick", action="store_true", help="few samples and rounds, one rate")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="write a page with plots of `audio` and `image`")
    arguments = parser.parse_args()
    started = time.monotonic()
    found = []
    for name in [arguments.scenario] if arguments.scenario else SCENARIOS:
        for report in SCENARIOS[name](arguments):
            found.append(report)
            print(json.dumps(report), flush=True)
    if arguments.plot:
        write_plots([each for each in found if "then_rounds" in each], arguments.plot)
    print(json.dumps({"contests": found, "wall_seconds": round(time.monotonic() - started)}))


if __name__ == "__main__":
    main()
