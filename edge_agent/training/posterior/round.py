"""A round of a task with `[posterior]`: from a version without this device's factor to a better factor. Pure."""

from typing import cast

import msgspec
import numpy as np

from edge_agent.core.sample_budget import epochs_of_steps, steps_of_round
from edge_agent.training.compression import remember
from edge_agent.training.engine import OnProgress, Rates, TrainingEngine
from edge_agent.training.feedback.factor import FactorFeedback
from edge_agent.training.personal.steps import Steps
from edge_agent.training.posterior.local import Drawn, LocalSteps, Predict, curvature
from edge_agent.training.posterior.natural import Natural, Vector, cavity_of
from edge_agent.training.round import Earlier, Learned, finish_round, learn
from edge_agent.training.stored_samples import StoredSamples
from edge_agent.training.validation import Evaluate, rise
from edge_agent.worker.contract import TrainingResult, Withheld
from fleet_protocol.codec import factor_places, gaussian_places, prior_of
from fleet_protocol.codec.sparse import FloatVector, IndexVector
from fleet_protocol.posterior_plan import PosteriorPlan
from fleet_protocol.task_description import TaskDescription

DRAWS_STREAM = 2
"""Separates weights and labels that a round draws from its batches."""


def find_factor(
    engine: TrainingEngine,
    version: FloatVector,
    stored: StoredSamples,
    task: TaskDescription,
    earlier: Earlier,
    *,
    plan: PosteriorPlan,
    epochs: float,
    evaluate: Evaluate,
    predict: Predict,
    on_progress: OnProgress,
) -> TrainingResult | Withheld:
    """What a round from a version f32[P + H] gives; rounds have gone over the samples `epochs` times before it.

    The factor is the estimate of the error feedback: all that was sent and not refused. What is offered to it is where
    the factor is to go, so that what compression left out is offered again; of the other weights, it is the change.

    Raises:
        DivergedError: loss or weights are no longer finite, or the factor is larger than the task takes.
        EngineError, GraphError: bundle and samples contradict each other.
    """
    samples = stored.training
    generator = np.random.default_rng((earlier.life, earlier.seed, DRAWS_STREAM))
    drawn = Drawn(gaussian_places(task, plan), prior_of(task, plan).astype(np.float64))
    in_update = factor_places(task, plan)
    told = _told_factor(task, earlier, in_update)
    begin, precisions = np.split(version, [task.parameter_count])
    whole = Natural.of_version(begin[drawn.places], precisions, drawn.prior)
    cavity = cavity_of(whole, Natural.of_factor(told, drawn.prior))
    batches = earlier.plan(
        len(samples), steps_of_round(task.training, len(samples)), task.training.batch_size, earlier.seed
    )
    steps = Steps(engine, samples, batches, Rates.planned(task.training))
    curved = curvature(steps, begin, whole, task.label, drawn, predict=predict, generator=generator)
    train = LocalSteps(cavity, curved, drawn, plan.step, generator).train
    learned = learn(engine, begin, samples, task, earlier.seed, plan=earlier.plan, train=train, on_progress=on_progress)
    epochs += epochs_of_steps(task.training, learned.steps, len(samples), stored.different)
    if len(stored.validation):
        risen = rise(evaluate(begin, stored.validation), evaluate(learned.weights, stored.validation))
        if risen.is_worse:
            return Withheld("worse", str(risen), samples.newest, epochs)
    mean = learned.weights[drawn.places]
    found = Natural((cavity.precision + curved) * mean - cavity.weighted_mean, curved).told(drawn.prior)
    offered = np.concatenate([learned.weights - begin, precisions])
    offered[in_update] = told + plan.damping * (found - told)
    result = finish_round(Learned(offered, learned.losses), np.zeros_like(offered), samples, task, earlier)
    return msgspec.structs.replace(result, epochs=epochs)


def _told_factor(task: TaskDescription, earlier: Earlier, in_update: IndexVector) -> Vector:
    """The device's factor as the coordinator has it, or will once what is on its way has come; 0 at first."""
    memory = remember(task, earlier.residual, earlier.returned, earlier.life)
    told: Vector = cast(FactorFeedback, memory).estimate[in_update]  # no other goes with the table
    return told
