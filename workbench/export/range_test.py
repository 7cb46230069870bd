"""A learning rate for a model: a range test (Smith 2017) on its own training graph, as devices run it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from bundle_runtime.samples import Samples
from edge_agent.training.engine import Rates, TrainingEngine, plan_batches
from fleet_protocol.bundle import TrainingPlan
from fleet_protocol.codec.sparse import FloatVector
from fleet_protocol.errors import ConfigurationError

LEARNING_RATES: Final = tuple(2.0**power for power in range(-17, 2))
"""Powers of 2, so that rounding, which differs between processors, does not change what is found."""
FEWEST_STEPS: Final = 100
"""Of one trial: as many rounds as have so many together."""
SETTLED_SHARE: Final = 1 / 4
"""Of the steps: their mean loss is what a trial comes to."""
ENOUGH: Final = 0.95
"""Of what the best trial takes off the loss: from the lowest rate that takes off so much on, rates gain little."""
CAUTION: Final = 1 / 2
"""Of that rate: what many devices learn apart adds up, and they have fewer samples and fewer classes each."""

Train = Callable[[float], FloatVector]
"""From a learning rate to the loss of each step of a trial; not finite where it diverges."""


@dataclass(frozen=True, slots=True)
class FoundRate:
    """`chosen`, from trials of which the one with `best` took most off the loss, from `first_loss` to `best_loss`."""

    chosen: float
    best: float
    first_loss: float
    best_loss: float


def find_learning_rate(train: Train) -> FoundRate:
    """Half of the lowest rate that lowers the loss nearly as far as any. Pure.

    Rates are tried in rising order, until one no longer lowers the loss where lower ones did.

    Raises:
        ConfigurationError: none lowers it.
    """
    first_loss = _settled(train(0.0))
    lowered: dict[float, float] = {}
    for rate in LEARNING_RATES:
        if (loss := _settled(train(rate))) < first_loss:
            lowered[rate] = loss
        elif lowered:
            break
    if not lowered:
        raise ConfigurationError(
            f"no learning rate from {LEARNING_RATES[0]:.2g} to {LEARNING_RATES[-1]:g} lowers the loss from"
            f" {first_loss:.3g}; scale the inputs to about -1 to 1, or write learning_rate in [training]"
        )
    best, best_loss = min(lowered.items(), key=lambda trial: trial[1])
    enough = first_loss - ENOUGH * (first_loss - best_loss)
    lowest = next(rate for rate, loss in lowered.items() if loss <= enough)
    return FoundRate(CAUTION * lowest, best, first_loss, best_loss)


def trial(engine: TrainingEngine, weights: FloatVector, samples: Samples, plan: TrainingPlan) -> Train:
    """Rounds of `plan`, one after the other, from `weights` f32[P] on `samples` as one device has them."""

    def train(rate: float) -> FloatVector:
        trained, losses = weights, np.empty(0, np.float32)
        rates = replace(Rates.planned(plan), learning_rate=rate)
        while losses.size < FEWEST_STEPS and np.isfinite(losses).all():
            batches = plan_batches(len(samples), plan.steps, plan.batch_size, seed=losses.size)
            trained, seen = engine.train(trained, samples, batches, rates)
            losses = np.concatenate([losses, seen])
        return losses

    return train


def _settled(losses: FloatVector) -> float:
    return float(np.mean(losses[-max(1, round(SETTLED_SHARE * losses.size)) :], dtype=np.float64))
