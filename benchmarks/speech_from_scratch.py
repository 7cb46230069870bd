"""A small network for ten words, from synthetic speech alone, against asynchronous rounds: for `federated_generation`.

`models/keyword_dscnn` begins untrained on both sides; no backbone helps. 30 devices share recordings of six speakers,
takes 5 and later; takes 0 to 4 are the test. Prompts: devices tell their classes and `band=8000`; the server trains on
800 sounds of each word. Updates: ten devices of unequal speed train at any time, and a version is made of every five
updates, weighted by their staleness; this is the shipped coordinator, in virtual time.

The learning rate of each, and the strategy of updates, are those of `RATES` and `STRATEGIES` that do best on a held-out
fifth of the training recordings; devices have the other four fifths then, and all for what is reported. A round is as
many updates as there are devices. Then five rounds of updates begin with what prompts made, in each of these ways.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.divisions import rows_of_devices
from benchmarks.mnist_fleet import Contender, Rates, contenders_bundle, unequal_fleet
from benchmarks.prompted_fleet import tell, with_prompts
from benchmarks.spoken_digits import RATE_HZ, SpokenDigits, read_recordings
from bundle_runtime.bundle import Bundle
from bundle_runtime.bundle_folder import load_bundle
from bundle_runtime.runner import BundleRunner
from bundle_runtime.samples import Samples
from edge_agent.core.prompt_settings import PromptSettings
from fleet_protocol.aggregation_plan import AggregationPlan, StrategyName
from fleet_protocol.bundle_files import WEIGHTS_FILE
from fleet_protocol.codec import read_weights, write_weights
from fleet_protocol.codec.sparse import FloatVector
from fleet_protocol.prompt_plan import PromptPlan
from fleet_protocol.update_plan import UpdatePlan
from models.keyword_dscnn.samples import CLIP_SAMPLES, inputs_from_sound
from prompt_synthesis.generators.speech import Speech
from prompt_synthesis.prompt import Prompt, combined
from prompt_synthesis.training import SyntheticTrainer
from workbench.recipe_folder import find_recipe
from workbench.simulation.ledger import Point
from workbench.simulation.simulation import Options, Result, Simulation
from workbench.simulation.workload import trained_workload

WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
STYLE = "band=8000"
DEVICES = 30
TRAINING_AT_A_TIME = 10
STRANGERS = (4, 5)
"""Of speakers 0 to 5, where those of the test are not to be heard before."""
RATES = (0.003, 0.01, 0.03)
STRATEGIES: tuple[StrategyName, ...] = ("fedbuff", "ca2fl")
"""The usual one, and the recipe's."""
FEW_ROUNDS = 5
HELD_OUT_PLACES = 5
"""Every fifth recording, at random."""
UPDATE = UpdatePlan(0.1)
"""A tenth of the values, ternary, as by default."""


@dataclass(frozen=True, slots=True)
class Choice:
    """How updates are learned from."""

    strategy: StrategyName
    rate: float

    @property
    def name(self) -> str:
        """For the report."""
        return f"{self.strategy} {self.rate}"

    @property
    def contender(self) -> Contender:
        """With polynomial weights of staleness."""
        return Contender(UPDATE, AggregationPlan(buffer_size=5, strategy=self.strategy, max_staleness=20))


@dataclass(frozen=True, slots=True)
class Effort:
    """`count` sounds of each word, over which training goes `epochs` times; `rounds` of updates; what to try."""

    count: int = 800
    epochs: int = 12
    rounds: int = 20
    rates: tuple[float, ...] = RATES
    strategies: tuple[StrategyName, ...] = STRATEGIES


QUICK = Effort(count=40, epochs=10, rounds=3, rates=(0.01,), strategies=("fedbuff",))


@dataclass(frozen=True, slots=True)
class Recordings:
    """Real sounds: `held_out` chooses rates, and is of `training`, of which `kept` are the others."""

    training: Samples
    kept: Samples
    held_out: Samples
    test: Samples


def clip(sound: NDArray[np.number]) -> NDArray[np.float64]:
    """The middle second f64[8000] of a sound at 8 kHz, with silence around it where it is shorter; the loudest value
    is 1.
    """
    start = max(0, (len(sound) - CLIP_SAMPLES) // 2)
    middle = sound[start : start + CLIP_SAMPLES].astype(np.float64)
    silence = CLIP_SAMPLES - len(middle)
    return np.pad(middle, (silence // 2, silence - silence // 2)) / (np.abs(middle).max() or 1.0)


def read(data: Path, strangers: Sequence[int] = ()) -> Recordings:
    """The spoken digits as the network hears them. With `strangers`, no device has anything of these speakers, and all
    their recordings are the test.
    """
    found: SpokenDigits = read_recordings(data, lambda sound: inputs_from_sound(clip(sound))[None])
    strange = np.isin(found.speakers, strangers)
    test = found.take(np.flatnonzero(strange)) if strangers else found.test
    order = np.random.default_rng(0).permutation(np.flatnonzero(~found.is_test & ~strange))
    held_out = np.arange(len(order)) % HELD_OUT_PLACES == 0
    return Recordings(found.take(order), found.take(order[~held_out]), found.take(order[held_out]), test)


@dataclass(frozen=True, slots=True)
class Trained:
    """What comes of synthetic sounds: weights f32[P], their `accuracy` on the test, and what is `told` of it."""

    weights: FloatVector
    accuracy: float
    told: dict[str, object]


class FromScratch:
    """Both ways to train the network, on recordings that are divided by a skew."""

    def __init__(self, name: str, recordings: Recordings, effort: Effort) -> None:
        self._name = name
        self._folder = find_recipe("keyword_dscnn") / "bundle"
        self._bundle = load_bundle(self._folder)
        self._runner = BundleRunner(self._bundle.description, self._bundle.files)
        self._recordings = recordings
        self._effort = effort
        self._by_told: dict[tuple[Prompt, ...], Trained] = {}

    def report(self, skew: str) -> dict[str, object]:
        """Prompts and updates, each as does best for it."""
        plan = PromptPlan("class", WORDS, "speech")
        parts = _divided(self._recordings.training, skew)
        told = tell(self._prompted(plan, 0.0), parts, PromptSettings(style=STYLE))
        asked = tuple(replace(prompt, devices=1) for prompt in combined(told.told, plan))
        if asked not in self._by_told:
            self._by_told[asked] = self._trained(asked)
        trained = self._by_told[asked]
        return {
            "scenario": self._name,
            "skew": skew,
            "prompts": trained.told
            | {"message_bytes": max(told.message_bytes), "bytes_of_all": sum(told.message_bytes)},
        } | self._updates(skew, trained)

    def _trained(self, asked: tuple[Prompt, ...]) -> Trained:
        """What comes of sounds by these prompts."""
        made = Speech((CLIP_SAMPLES,), RATE_HZ).generate(asked, self._effort.count, 0)
        synthetic = Samples(np.stack([inputs_from_sound(clip(sound)) for sound in made.inputs]), made.labels)
        held_out = self._recordings.held_out
        by_rate = {rate: self._by_prompts(synthetic, rate) for rate in self._effort.rates}
        tried = {rate: self._accuracy(weights, held_out) for rate, weights in by_rate.items()}
        rate = max(tried, key=lambda rate: tried[rate])
        accuracy = self._accuracy(by_rate[rate], self._recordings.test)
        told = {
            "learning_rate": rate,
            "held_out": {str(rate): round(found, 4) for rate, found in tried.items()},
            "accuracy": round(accuracy, 4),
        }
        return Trained(by_rate[rate], accuracy, told)

    def _updates(self, skew: str, trained: Trained) -> dict[str, object]:
        """What to report of updates from scratch, and of some from what is `trained` by prompts."""
        kept, held_out = _divided(self._recordings.kept, skew), self._recordings.held_out
        choices = [Choice(strategy, rate) for strategy in self._effort.strategies for rate in self._effort.rates]
        tried = {choice: self._by_updates(kept, choice, held_out, FEW_ROUNDS) for choice in choices}
        chosen = max(tried, key=lambda choice: tried[choice].summary.score)
        training = _divided(self._recordings.training, skew)
        test = self._recordings.test
        found = self._by_updates(training, chosen, test, self._effort.rounds)
        then = {choice: self._by_updates(training, choice, test, FEW_ROUNDS, trained.weights) for choice in choices}
        updates = {
            "strategy": chosen.strategy,
            "learning_rate": chosen.rate,
            "held_out": {choice.name: round(run.summary.score, 4) for choice, run in tried.items()},
            "after_rounds": _after(found.history),
            "accuracy": round(found.summary.score, 4),
            "first_as_good_as_prompts": _first(found.history, trained.accuracy),
            "uplink_bytes": found.summary.uplink_bytes,
            "staleness": found.summary.staleness,
            "devices": len(training),
            "devices_short_of_samples": found.summary.devices_short_of_samples,
        }
        return {
            "updates": updates,
            "prompts_then_updates": {choice.name: _after(run.history) for choice, run in then.items()},
        }

    def _prompted(self, plan: PromptPlan, rate: float) -> Bundle:
        return with_prompts(self._bundle, plan, UPDATE, rate, DEVICES)

    def _by_prompts(self, synthetic: Samples, rate: float) -> FloatVector:
        """The weights after training on synthetic sounds."""
        bundle = self._prompted(PromptPlan("class", WORDS, "speech"), rate)
        first = read_weights(bundle.weights, bundle.description.parameters)
        return SyntheticTrainer(bundle, 1).train(first, synthetic, self._effort.epochs, 0, lambda _: None).weights

    def _accuracy(self, weights: FloatVector, heard: Samples) -> float:
        return self._runner.evaluate_features(weights, heard).accuracy or 0.0

    def _by_updates(
        self, parts: list[Samples], choice: Choice, heard: Samples, rounds: int, first: FloatVector | None = None
    ) -> Result:
        """A simulation that is scored on `heard` after every round; it begins with `first`, or with the bundle's."""
        bundle = contenders_bundle(self._bundle, choice.contender, Rates(choice.rate, 1.0, 0.0))
        if first is not None:
            weights = write_weights(first, bundle.description.parameters)
            bundle = Bundle(bundle.description, {**bundle.files, WEIGHTS_FILE: weights})
        updates = rounds * DEVICES
        options = Options(seed=0, seconds=math.inf, updates=updates, score_every=DEVICES, concurrent=TRAINING_AT_A_TIME)
        workload = trained_workload(self._folder, bundle.description, parts, heard)
        return Simulation(unequal_fleet(0, len(parts)), bundle, workload, options).run()


def _divided(samples: Samples, skew: str) -> list[Samples]:
    return [samples.take(rows) for rows in rows_of_devices(samples.labels, DEVICES, skew)]


def _after(history: list[Point]) -> dict[str, float]:
    """Accuracy after some rounds."""
    at = {point.updates // DEVICES: round(point.score, 4) for point in history}
    return {str(number): at[number] for number in (1, 2, 5, 10, 15, 20, 50, 100) if number in at}


def _first(history: list[Point], accuracy: float) -> float | None:
    """After which round updates are as good; None where they never are."""
    return next((point.updates / DEVICES for point in history if point.score >= accuracy), None)
