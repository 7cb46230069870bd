"""What a device keeps to itself of a round: its own parameters, or a model of its own. Pure."""

from collections.abc import Callable

import numpy as np

from bundle_runtime.runner import Evaluation
from bundle_runtime.samples import Samples
from edge_agent.core.sample_budget import steps_of_round
from edge_agent.training.engine import PlanBatches, Rates, TrainingEngine
from edge_agent.training.personal.adaptation import adapt
from edge_agent.training.personal.ditto import train_copy
from edge_agent.training.personal.steps import Steps
from edge_agent.training.stored_samples import StoredSamples
from edge_agent.training.validation import rise
from fleet_protocol.codec import device_model, own_of
from fleet_protocol.codec.sparse import FloatVector
from fleet_protocol.personal_plan import PersonalPlan
from fleet_protocol.task_description import TaskDescription

Evaluate = Callable[[FloatVector, Samples], Evaluation]
"""How the model with these weights f32[P] does on samples, as training takes them."""
PlanSteps = Callable[[int], Steps]
"""The steps of a round that has so many."""


def steps_on(
    engine: TrainingEngine, samples: Samples, task: TaskDescription, seed: int, plan: PlanBatches
) -> PlanSteps:
    """How a task's steps on some samples are planned."""

    def planned(count: int) -> Steps:
        batches = plan(len(samples), count, task.training.batch_size, seed)
        return Steps(engine, samples, batches, Rates.planned(task.training))

    return planned


def own_copy(
    planned: PlanSteps,
    shared: FloatVector,
    kept: bytes,
    stored: StoredSamples,
    task: TaskDescription,
    *,
    evaluate: Evaluate,
) -> bytes | None:
    """The model of its own that a device keeps from now on, where the task has it keep one; None where it stays as it
    is. `shared` f32[P] is what the round began with, `kept` what the device has kept so far.

    Nothing is kept that is not finite, or that makes validation samples worse: as no such round is sent. Ditto's copy
    then stays as it was; an adaptation is left out, as a former one would be of another shared model.

    Raises:
        EngineError, GraphError: bundle and samples contradict each other.
    """
    plan = task.personal
    if plan is None or not plan.keeps_whole_model:
        return None
    if plan.method == "ditto":
        before, instead = device_model(shared, kept, task), None
        steps = planned(steps_of_round(task.training, len(stored.training)))
        after = train_copy(steps, before, shared, plan.lambda_, task.trained_count)
    else:
        before, instead = shared, b""
        after = adapt(_adaptation(planned, plan, task), before)
    if not np.isfinite(after).all():
        return instead
    judging = stored.validation
    if len(judging) and rise(evaluate(before, judging), evaluate(after, judging)).is_worse:
        return instead
    return after.tobytes()


def own_parameters(trained: FloatVector, task: TaskDescription) -> bytes | None:
    """The values of the parameters that never leave the device, of what a round has `trained`, f32[P]; None where the
    task has none.
    """
    return own_of(trained, task) if task.own_parameters else None


def _adaptation(planned: PlanSteps, plan: PersonalPlan, task: TaskDescription) -> Steps:
    return planned(plan.steps_to_adapt).at(plan.adaptation_rate or task.training.learning_rate)
