"""How a round trains what it may send: every step on all of the weights, or as the task's `[personal]` has it. Pure."""

from edge_agent.training.engine import OnProgress
from edge_agent.training.personal.adaptation import train_to_adapt
from edge_agent.training.personal.parts import steps_alone, train_in_turn
from edge_agent.training.personal.steps import Steps
from fleet_protocol.codec import own_places
from fleet_protocol.codec.sparse import FloatVector
from fleet_protocol.task_description import TaskDescription


def train_shared(
    steps: Steps, weights: FloatVector, task: TaskDescription, on_progress: OnProgress
) -> tuple[FloatVector, FloatVector]:
    """The weights behind a round's steps, from `weights` with the device's own values in them, both f32[P], and the
    loss of each.

    Raises:
        EngineError: bundle and samples contradict each other.
    """
    plan = task.personal
    if plan is not None and plan.method == "maml":
        return train_to_adapt(steps, weights, plan.adaptation_rate or task.training.learning_rate, on_progress)
    if plan is not None and plan.first_steps and steps.count > 1:
        first_steps = steps_alone(plan.first_steps, task.training.steps, steps.count)
        return train_in_turn(steps, weights, own_places(task), first_steps, on_progress)
    return steps.together(weights, on_progress)
