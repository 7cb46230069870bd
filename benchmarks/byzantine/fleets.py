"""The fleets that are attacked: a hundred devices with unequal shares of some pictures, a fifth of them hostile.

The simulation runs the shipped cores, codec and signatures; devices differ in speed, and some train at a time, so that
updates are stale. The model to use is scored, on a fifth of the samples.
"""

import math
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from benchmarks.byzantine.attacks import OF_LABELS, Adversary, flipped
from benchmarks.mnist import read_mnist
from benchmarks.mnist_fleet import BALANCED_RECIPE, unequal_fleet
from bundle_runtime.bundle import Bundle
from bundle_runtime.bundle_folder import load_bundle
from bundle_runtime.samples import Samples
from edge_agent.core.guards import GuardSettings
from fleet_protocol.aggregation_plan import AggregationPlan
from fleet_protocol.bundle import parse_description
from fleet_protocol.robust_plan import TRUSTING_RULES
from workbench.data.partition import DIRICHLET_CONCENTRATION
from workbench.data.samples import FEWEST_SAMPLES, read_samples, share_out
from workbench.export.bundle_writer import export_bundle
from workbench.simulation.messages import device_name
from workbench.simulation.simulation import Options, Result, Simulation
from workbench.simulation.workload import trained_workload

DIGITS_BUNDLE: Final = Path("models/digits/bundle")
PICTURES: Final = 4_000
"""Of MNIST and of notMNIST."""
TRAINING_AT_A_TIME: Final = 20
SCORES: Final = 10
TRUSTED_SAMPLES: Final = 100
"""As in FLTrust's experiments: of all classes, set apart from what the others train with and from what scores."""
TRUSTED_DEVICES: Final = 8
"""All with the same samples. Who trains next is drawn evenly among all devices, where a real trusted device trains for
every version: so several, one of which is in nearly every version."""
TRUSTED_ROUND: Final = 0.5
"""How long a trusted device's round takes, in rounds of the median device: it stands beside the coordinator."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """Which devices there are, how long they train (`updates` accepted ones), and how much their labels differ:
    `concentration` is that of the Dirichlet distributions.
    """

    devices: int
    hostile: int
    updates: int
    seed: int
    concentration: float = DIRICHLET_CONCENTRATION


@dataclass(frozen=True, slots=True)
class Field:
    """Samples, and the bundle in `folder` that devices train with them."""

    folder: Path
    bundle: Bundle
    samples: Samples

    def run(self, plan: AggregationPlan | None, attack: str, scenario: Scenario) -> Result:
        """A fleet whose versions are made as `plan` says, or as the recipe does, under an attack."""
        bundle = _with(self.bundle, _naming_trusted(plan, scenario))
        task = bundle.description
        trusted, parts, held_out = self._shared_out(scenario)
        if attack in OF_LABELS:
            parts = [
                flipped(part, task.label.classes) if device < scenario.hostile else part
                for device, part in enumerate(parts)
            ]
        options = Options(
            seed=scenario.seed,
            seconds=math.inf,
            updates=scenario.updates,
            score_every=max(1, scenario.updates // SCORES),
            concurrent=min(TRAINING_AT_A_TIME, scenario.devices),
        )
        adversary = Adversary(attack, scenario.devices, scenario.hostile, scenario.seed)
        rule = task.aggregation.rule
        is_trusting = rule is not None and bool(rule.trusted_devices)
        parts = [*parts, *[trusted] * TRUSTED_DEVICES] if is_trusting else parts
        guards = GuardSettings(minimum_samples=FEWEST_SAMPLES)  # so that each device of the hundred trains
        fleet = [replace(member, guards=guards) for member in unequal_fleet(scenario.seed, scenario.devices)]
        if is_trusting:
            beside = msgspec.structs.replace(fleet[-1].conditions, start_seconds=TRUSTED_ROUND)
            fleet += [replace(fleet[-1], conditions=beside)] * TRUSTED_DEVICES
        workload = trained_workload(self.folder, task, parts, held_out)
        return Simulation(fleet, bundle, workload, options, tamper=adversary.tamper).run()

    def classes_a_device(self, scenario: Scenario) -> float:
        """How many classes a device has samples of, in the mean."""
        return float(np.mean([np.unique(part.labels).size for part in self._shared_out(scenario)[1]]))

    @staticmethod
    def rounds_of_hostile(scenario: Scenario) -> float:
        """The share of all rounds that hostile devices do, where everybody trains all the time: the fast do more."""
        rounds = [1 / member.conditions.start_seconds for member in unequal_fleet(scenario.seed, scenario.devices)]
        return sum(rounds[: scenario.hostile]) / sum(rounds)

    def _shared_out(self, scenario: Scenario) -> tuple[Samples, Sequence[Samples], Samples]:
        """What trusted devices have, what each of the others has, and what is held out."""
        rows = np.random.default_rng((scenario.seed, 4)).permutation(len(self.samples))
        trusted, others = self.samples.take(rows[:TRUSTED_SAMPLES]), self.samples.take(rows[TRUSTED_SAMPLES:])
        parts, held_out = share_out(
            others, self.bundle.description, scenario.devices, scenario.seed, concentration=scenario.concentration
        )
        return trusted, parts, held_out


@contextmanager
def prepared(data: str, folder: Path | None) -> Iterator[Field]:
    """`digits`, or `mnist` or `notmnist` in `folder`, on the recipe of `benchmarks/mnist_mlp_balanced`."""
    if data == "digits":
        bundle = load_bundle(DIGITS_BUNDLE)
        yield Field(DIGITS_BUNDLE, bundle, read_samples(data, bundle.description))
        return
    if folder is None:
        raise SystemExit(f"--data {data}: give --data-dir, the folder that {data} is in")
    pictures = read_mnist(folder / data)
    rows = np.random.default_rng(0).permutation(len(pictures.labels))[:PICTURES]
    samples = Samples(pictures.images[rows].reshape(PICTURES, -1), pictures.labels[rows])
    with tempfile.TemporaryDirectory() as exported:
        export_bundle(BALANCED_RECIPE, Path(exported))
        yield Field(Path(exported), load_bundle(Path(exported)), samples)


def _naming_trusted(plan: AggregationPlan | None, scenario: Scenario) -> AggregationPlan | None:
    """A rule that judges by trusted devices names those behind the others."""
    if plan is None or plan.rule is None or plan.rule.rule not in TRUSTING_RULES:
        return plan
    names = tuple(device_name(scenario.devices + number) for number in range(TRUSTED_DEVICES))
    rule = msgspec.structs.replace(plan.rule, trusted_devices=names)
    return msgspec.structs.replace(plan, robust=rule)


def _with(bundle: Bundle, plan: AggregationPlan | None) -> Bundle:
    """The bundle with another plan, checked as when it is loaded."""
    if plan is None:
        return bundle
    changed = msgspec.structs.replace(bundle.description, aggregation=plan)
    return Bundle(parse_description(msgspec.json.encode(changed), "the attacked task"), bundle.files)
