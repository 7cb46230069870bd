"""What a training engine is: weights and mini-batches in, trained weights out."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bundle_runtime.samples import Samples
from fleet_protocol.codec.sparse import FloatVector
from fleet_protocol.training_plan import TrainingPlan

REPORT_SECONDS = 0.5
"""Between two reports of the progress of a round."""


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """K mini-batches of at most B rows: `rows` int64 [K, B], `mask` float32 [K, B], 0 where a row is padding.

    Whatever else is drawn in the round, such as dropout's masks, follows from `seed`: in step k, from `seed` + k.
    """

    rows: NDArray[np.int64]
    mask: NDArray[np.float32]
    seed: int


@dataclass(frozen=True, slots=True)
class Rates:
    """What is the same in each step of a round; a `gradient_clip` of 0 stands for none. `correction` f32[T] is added to
    each gradient of a task that corrects drift, None for nothing.
    """

    learning_rate: float
    weight_decay: float = 0.0
    gradient_clip: float = 0.0
    proximal: float = 0.0
    correction: FloatVector | None = field(default=None, compare=False)

    @classmethod
    def planned(cls, plan: TrainingPlan) -> "Rates":
        """Those that a task's plan names."""
        return cls(plan.learning_rate, plan.weight_decay, plan.gradient_clip, plan.proximal)


OnProgress = Callable[[int, FloatVector], None]
"""Called with the number of steps done, and the loss of each of them."""


def ignore_progress(_steps_done: int, _losses: FloatVector) -> None:
    """Ignore progress."""


class EngineError(Exception):
    """The engine can't train this bundle; says why, and what to do."""


class TrainingEngine(Protocol):
    """Runs the steps of one round."""

    def train(
        self,
        weights: FloatVector,
        samples: Samples,
        plan: BatchPlan,
        rates: Rates,
        on_progress: OnProgress = ignore_progress,
    ) -> tuple[FloatVector, FloatVector]:
        """Trained weights float32 [P], and the mean loss of each of the K mini-batches.

        `on_progress` is called a few times a second at most, and never changes what is computed.

        Raises:
            EngineError: bundle and samples contradict each other.
        """
        ...


def seed_of_steps(round_seed: int) -> int:
    """For a `BatchPlan`, 32 bits. Hashed, since rounds count on by one, and steps do too: a round would else draw again
    what the one before it drew, all but one step, and a generator would learn a few latent vectors by heart.
    """
    return int(np.random.SeedSequence(round_seed).generate_state(1)[0])


def plan_batches(sample_count: int, steps: int, batch_size: int, seed: int) -> BatchPlan:
    """Shuffled epochs, one after the other, cut into batches; a store smaller than a batch fills part of each."""
    generator = np.random.default_rng(seed)
    filled = min(batch_size, sample_count)
    epochs = -(-steps * filled // sample_count)
    order = np.concatenate([generator.permutation(sample_count) for _ in range(epochs)])
    rows = np.zeros((steps, batch_size), np.int64)
    rows[:, :filled] = order[: steps * filled].reshape(steps, filled)
    mask = np.zeros((steps, batch_size), np.float32)
    mask[:, :filled] = 1.0
    return BatchPlan(rows, mask, seed_of_steps(seed))


PlanBatches = Callable[[int, int, int, int], BatchPlan]
"""As `plan_batches`: from the number of samples, steps, the size of a batch, and a seed."""
