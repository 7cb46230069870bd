"""What a device keeps to itself of a round: its own parameters, or a model of its own. Pure."""

from collections.abc import Callable
from typing import Final

import numpy as np

from bundle_runtime.samples import Samples
from edge_agent.core.sample_budget import steps_of_round
from edge_agent.training.engine import PlanBatches, Rates, TrainingEngine
from edge_agent.training.personal.adaptation import adapt
from edge_agent.training.personal.ditto import train_copy
from edge_agent.training.personal.steps import Steps
from edge_agent.training.stored_samples import StoredSamples
from edge_agent.training.validation import Evaluate, is_worse
from fleet_protocol.codec import device_model, own_of
from fleet_protocol.codec.sparse import FloatVector
from fleet_protocol.personal_plan import PersonalPlan
from fleet_protocol.task_description import TaskDescription

GOES_ON: Final = ("parts", "ditto")
"""Methods whose rounds go on from what is kept; the others begin with the shared model."""
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
    return instead if is_worse(before, after, stored.validation, evaluate) else after.tobytes()


def kept_or_anew(
    kept: bytes, version: FloatVector, stored: StoredSamples, task: TaskDescription, *, evaluate: Evaluate
) -> bytes:
    """What a round begins with of what the device has `kept`: nothing, where the version f32[P] by itself is better on
    validation samples. A bad round of former samples would stay for good otherwise.
    """
    if not kept or task.personal is None or task.personal.method not in GOES_ON:
        return kept
    return b"" if is_worse(version, device_model(version, kept, task), stored.validation, evaluate) else kept


def own_parameters(trained: FloatVector, task: TaskDescription) -> bytes | None:
    """The values of the parameters that never leave the device, of what a round has `trained`, f32[P]; None where the
    task has none.
    """
    return own_of(trained, task) if task.own_parameters else None


def _adaptation(planned: PlanSteps, plan: PersonalPlan, task: TaskDescription) -> Steps:
    return planned(plan.steps_to_adapt).at(plan.adaptation_rate or task.training.learning_rate)
