"""How often a device trains on the same samples: within a round, and over all rounds until new samples come. Pure."""

import math
from typing import Final

from fleet_protocol.training_plan import TrainingPlan

ROUNDING: Final = 1e-9
"""Of epochs: what many roundings of their share may have taken away, far less than one sample of a round."""


def steps_of_round(plan: TrainingPlan, samples: int) -> int:
    """The plan's steps, or fewer where these would go over `samples` samples more than `epochs_per_round` times."""
    if not plan.epochs_per_round:
        return plan.steps
    return min(plan.steps, math.ceil(plan.epochs_per_round * samples / min(plan.batch_size, samples)))


def epochs_of_steps(plan: TrainingPlan, steps: int, samples: int, different: int) -> float:
    """How often so many steps on `samples` samples go over the `different` ones among them."""
    return steps * min(plan.batch_size, samples) / different


def carried_epochs(epochs: float, different: int, fresh: int) -> float:
    """Epochs that rounds have spent, on average, on the samples that are stored now.

    `epochs` are those spent on the samples stored at the last round, `different` is how many different ones are stored
    now, and `fresh` how many of them no round has seen. Fresh ones have had none: so they bring rounds in proportion.
    """
    return epochs * (different - fresh) / different


def is_spent(plan: TrainingPlan, epochs: float) -> bool:
    """Whether a device that has spent `epochs` on its samples waits for new ones."""
    return 0 < plan.maximum_epochs <= epochs * (1 + ROUNDING)
