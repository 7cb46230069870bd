"""A learning rate for a model: a range test (Smith 2017) on its own training graph, as devices run it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from bundle_runtime.samples import Samples
from edge_agent.training.engine import Rates, TrainingEngine, plan_batches
from fleet_protocol.codec.sparse import FloatVector
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.training_plan import TrainingPlan

LEARNING_RATES: Final = tuple(2.0**power for power in range(-17, 2))
"""Powers of 2, so that rounding, which differs between processors, does not change what is found."""
STEPS: Final = (100, 400, 1600)
"""Of one trial: as many rounds as have so many together. Longer ones are for models that have hardly begun to learn by
then: deep ones without normalisation stand on a plateau at first."""
HARDLY: Final = 0.05
"""Of the loss: a model from which no trial takes more has hardly begun to learn."""
SETTLED_SHARE: Final = 1 / 4
"""Of the steps: their mean loss is what a trial comes to."""
ENOUGH: Final = 0.95
"""Of what the best trial takes off the loss: from the lowest rate that takes off so much on, rates gain little."""
CAUTION: Final = 1 / 2
"""Of that rate: what many devices learn apart adds up, and they have fewer samples and fewer classes each."""

Train = Callable[[float, int], FloatVector]
"""From a learning rate, and how many steps there are at least, to the loss of each; not finite where it diverges."""


@dataclass(frozen=True, slots=True)
class FoundRate:
    """`chosen`, from trials of which the one with `best` took most off the loss, from `first_loss` to `best_loss`."""

    chosen: float
    best: float
    first_loss: float
    best_loss: float

    @property
    def hardly_learns(self) -> bool:
        """Whether even the best trial takes next to nothing off the loss."""
        return self.first_loss - self.best_loss < HARDLY * abs(self.first_loss)


def find_learning_rate(train: Train) -> FoundRate:
    """Half of the lowest rate that lowers the loss nearly as far as any. Pure.

    Where the model hardly learns, trials are longer, from the rate on that takes as large a step in as many more.

    Raises:
        ConfigurationError: none lowers the loss.
    """
    shortest, *longer = STEPS
    found = _found(train, shortest, lowest=0.0)
    if found is None:
        raise ConfigurationError(
            f"no learning rate from {LEARNING_RATES[0]:.2g} to {LEARNING_RATES[-1]:g} lowers the loss from"
            f" {_settled(train(0.0, shortest)):.3g}; scale the inputs to about -1 to 1, or write learning_rate in"
            " [training]"
        )
    for steps in longer:
        if not found.hardly_learns:
            break
        found = _found(train, steps, lowest=found.best * shortest / steps) or found
    return found


def _found(train: Train, steps: int, lowest: float) -> FoundRate | None:
    """By trials of so many steps, with rates from `lowest` on; None where none lowers the loss. They are tried in
    rising order, until one no longer lowers the loss where lower ones did.
    """
    first_loss = _settled(train(0.0, steps))
    lowered: dict[float, float] = {}
    for rate in LEARNING_RATES:
        if rate < lowest:
            continue
        if (loss := _settled(train(rate, steps))) < first_loss:
            lowered[rate] = loss
        elif lowered:
            break
    return _chosen(first_loss, lowered) if lowered else None


def _chosen(first_loss: float, lowered: Mapping[float, float]) -> FoundRate:
    best, best_loss = min(lowered.items(), key=lambda trial: trial[1])
    enough = first_loss - ENOUGH * (first_loss - best_loss)
    lowest = next(rate for rate, loss in lowered.items() if loss <= enough)
    return FoundRate(CAUTION * lowest, best, first_loss, best_loss)


def trial(engine: TrainingEngine, weights: FloatVector, samples: Samples, plan: TrainingPlan) -> Train:
    """Rounds of `plan`, one after the other, from `weights` f32[P] on `samples` as one device has them."""

    def train(rate: float, steps: int) -> FloatVector:
        trained, losses = weights, np.empty(0, np.float32)
        rates = replace(Rates.planned(plan), learning_rate=rate)
        while losses.size < steps and np.isfinite(losses).all():
            batches = plan_batches(len(samples), plan.steps, plan.batch_size, seed=losses.size)
            trained, seen = engine.train(trained, samples, batches, rates)
            losses = np.concatenate([losses, seen])
        return losses

    return train


def _settled(losses: FloatVector) -> float:
    return float(np.mean(losses[-max(1, round(SETTLED_SHARE * losses.size)) :], dtype=np.float64))
