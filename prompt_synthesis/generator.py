"""What a generator is: prompts in, labelled training data out, and where each sample comes from."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fleet_protocol.task_description import TaskDescription
from prompt_synthesis.prompt import Prompt


class GeneratorError(Exception):
    """Nothing can be made of these prompts; says why. Others may work."""


@dataclass(frozen=True, slots=True)
class Synthetic:
    """`inputs` f32[N, ...], as the task takes samples, or, where they are `features`, as its backbone gives them.

    `labels` int64[N]; `origins` say of each sample what it was made by.
    """

    inputs: NDArray[np.float32]
    labels: NDArray[np.int64]
    origins: Sequence[str]
    features: bool = False

    def first(self, count: int) -> "Synthetic":
        """At most so many of them."""
        return Synthetic(self.inputs[:count], self.labels[:count], self.origins[:count], self.features)


class Generator(Protocol):
    """Makes samples of prompts. One of your own: an entry point `edgeflock.generators` that names a `MakeGenerator`."""

    def generate(self, prompts: Sequence[Prompt], count: int, seed: int) -> Synthetic:
        """About `count` samples of each prompt; the same ones for the same arguments.

        Raises:
            GeneratorError: nothing can be made of them.
        """
        ...


class MakeGenerator(Protocol):
    """Makes the generator for one task."""

    def __call__(self, task: TaskDescription, argument: str) -> Generator:
        """The generator. `argument` is what stands behind its name and a colon on the command line; mostly empty.

        Raises:
            ConfigurationError: it does not fit the task, or this machine lacks what it needs; says what helps.
        """
        ...
