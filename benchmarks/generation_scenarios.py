"""What `federated_generation` trains: spoken digits behind a backbone, and letters, each with data and efforts."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from benchmarks.divisions import rows_of_devices
from benchmarks.mnist import read_mnist
from benchmarks.prompted_fleet import with_prompts
from benchmarks.speech_from_scratch import WORDS
from benchmarks.spoken_digits import read_spoken_digits
from bundle_runtime.bundle import Bundle
from bundle_runtime.bundle_folder import load_bundle
from bundle_runtime.runner import BundleRunner
from bundle_runtime.samples import Samples
from fleet_protocol.codec import read_weights
from fleet_protocol.codec.sparse import FloatVector
from fleet_protocol.prompt_plan import Level, PromptPlan
from fleet_protocol.update_plan import UpdatePlan
from workbench.export.bundle_writer import export_bundle
from workbench.recipe_folder import find_recipe

LETTERS = list("ABCDEFGHIJ")
COMPRESSED = UpdatePlan(0.1)
"""A tenth of the values, ternary: the default."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """One task with its data. `rates` are tried for rounds; `count` samples of each class are synthesised, over which
    training goes `epochs` times.
    """

    name: str
    bundle: Bundle
    training: Samples
    test: Samples
    devices: int
    names: list[str]
    generator: str
    style: str
    count: int
    epochs: int
    rounds: int
    rates: tuple[float, ...]

    def parts(self, skew: str) -> list[Samples]:
        """The training samples of each device; none is empty."""
        return [self.training.take(rows) for rows in rows_of_devices(self.training.labels, self.devices, skew)]

    def with_level(self, level: Level, rate: float | None = None) -> Bundle:
        """The task with prompts of that level, at another rate than the recipe's."""
        plan = PromptPlan(level, self.names, self.generator)
        return with_prompts(self.bundle, plan, COMPRESSED, rate or self.rate, self.devices)

    @property
    def rate(self) -> float:
        """The recipe's."""
        return self.bundle.description.training.learning_rate

    @property
    def first(self) -> FloatVector:
        """The untrained weights, f32[P]."""
        return read_weights(self.bundle.weights, self.bundle.description.parameters)


class MakeScenario(Protocol):
    """Makes one of data in a folder."""

    def __call__(self, data: Path, folder: Path, *, quick: bool) -> Scenario:
        """The scenario; `folder` is for a bundle that has to be exported, and `quick` one shows only that it works."""
        ...


def audio(data: Path, folder: Path, *, quick: bool) -> Scenario:
    """Spoken digits. Of their style, devices tell what their owners know: the microphones end at 4 kHz."""
    export_bundle(find_recipe("speech_commands"), folder, tell=lambda _: None)
    bundle = load_bundle(folder)
    recordings = read_spoken_digits(data, BundleRunner(bundle.description, bundle.files))
    return Scenario(
        "audio",
        bundle,
        recordings.take(recordings.training),
        recordings.test,
        devices=30,
        names=WORDS,
        generator="speech",
        style="band=8000",
        count=40 if quick else 200,
        epochs=20,
        rounds=10 if quick else 100,
        rates=(0.01,) if quick else (0.003, 0.01, 0.03),
    )


def image(data: Path, folder: Path, *, quick: bool) -> Scenario:
    """Letters A to J, of 5,000 pictures for training and as many for the test. Of their style, devices tell what their
    owners see: a letter fills its picture.
    """
    bundle = load_bundle(find_recipe("mnist_cnn") / "bundle")
    pictures = read_mnist(data / "notmnist")
    samples = Samples(pictures.images, pictures.labels)
    half = len(samples) // 2
    order = np.random.default_rng(0).permutation(len(samples))
    return Scenario(
        "image",
        bundle,
        samples.take(order[:half]),
        samples.take(order[half:]),
        devices=10,
        names=LETTERS,
        generator="glyphs",
        style="fit=both size=1 noise=0",
        count=50 if quick else 500,
        epochs=3 if quick else 10,
        rounds=3 if quick else 30,
        rates=(0.05,) if quick else (0.02, 0.05),
    )
