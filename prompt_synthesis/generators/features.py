"""Features drawn from the mixtures of normal distributions that devices told: the levels `moments` and `instance`."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fleet_protocol.sample_schema import InputSchema
from fleet_protocol.task_description import TaskDescription
from prompt_synthesis.generator import Generator, GeneratorError, Synthetic
from prompt_synthesis.prompt import Mixture, Prompt


class Features:
    """Of a task whose samples are trained on as `schema` says; what is drawn beyond its bounds is cut to them."""

    def __init__(self, schema: InputSchema) -> None:
        self._schema = schema

    def generate(self, prompts: Sequence[Prompt], count: int, seed: int) -> Synthetic:
        """As `Generator.generate`."""
        generator = np.random.default_rng(seed)
        told = [(prompt, prompt.mixture) for prompt in prompts if prompt.mixture is not None]
        if not told:
            raise GeneratorError("devices told no moments of it: their owners allow the level class at most")
        drawn = [_drawn(mixture, count, generator) for _, mixture in told]
        within = np.concatenate(drawn).clip(self._schema.minimum, self._schema.maximum)
        inputs = within.astype(np.float32).reshape(-1, *self._schema.shape)
        labels = np.repeat([prompt.label for prompt, _ in told], count).astype(np.int64)
        origins = [f"drawn from {mixture.weights.size} groups" for _, mixture in told for _ in range(count)]
        return Synthetic(inputs, labels, origins, features=True)


def _drawn(mixture: Mixture, count: int, generator: np.random.Generator) -> NDArray[np.float64]:
    chosen = generator.choice(mixture.weights.size, count, p=mixture.weights)
    noise = generator.standard_normal((count, mixture.means.shape[1]))
    drawn: NDArray[np.float64] = mixture.means[chosen] + np.sqrt(mixture.variances[chosen]) * noise
    return drawn


def make(task: TaskDescription, _argument: str) -> Generator:
    """For any task: what is trained on are features, or, without a backbone, the inputs."""
    return Features(task.trained_input)
