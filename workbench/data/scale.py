"""The scale that a task would have if some samples were all that its fleet has. Pure."""

from broker_coordinator.aggregation.fleet_scale import awaited_columns, fleet_scale, rescaled
from bundle_runtime.samples import Samples
from edge_agent.training.statistics import measure
from fleet_protocol.codec import decode_moments
from fleet_protocol.task_description import TaskDescription


def scaled_by(samples: Samples, task: TaskDescription) -> TaskDescription:
    """The task with the scale that it awaits, made of `samples`; itself where it awaits none."""
    if not task.scaling.is_awaited:
        return task
    moments = decode_moments(measure(samples, task).statistics, sum(awaited_columns(task)))
    return rescaled(task, fleet_scale({"all": moments}))
