"""What a round takes on a simulated device: the samples that are stored there, and virtual seconds."""

import numpy as np
from numpy.typing import NDArray

from edge_agent.core.sample_budget import steps_of_round
from edge_agent.training.measured_step import OPERATIONS_PER_WEIGHT_AND_SAMPLE
from edge_agent.training.stored_samples import StoredSamples, divide
from fleet_protocol.task_description import TaskDescription
from workbench.simulation.conditions import Conditions
from workbench.simulation.device_memory import unseen_rows
from workbench.simulation.workload import Workload


def round_seconds(task: TaskDescription, conditions: Conditions, samples: int) -> float:
    """How long a round on so many samples takes."""
    plan = task.training
    steps = steps_of_round(plan, samples)
    work = OPERATIONS_PER_WEIGHT_AND_SAMPLE * task.parameter_count * plan.batch_size * steps
    return conditions.start_seconds + work / (1e6 * conditions.training_mflops)


def samples_of_round(
    workload: Workload,
    task: TaskDescription,
    device: int,
    stored: NDArray[np.int64],
    *,
    newest_sample: int,
    trained_through: int,
) -> StoredSamples:
    """The samples in the `stored` rows of a device, as a round finds them when `newest_sample` have come."""
    unseen = unseen_rows(stored, workload.count(device), newest_sample, trained_through)
    samples, identities = workload.samples(device, stored), workload.identities(device, stored)
    return divide(samples, identities, unseen, task.training.validation_share)
