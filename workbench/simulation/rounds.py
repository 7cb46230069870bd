"""What a round takes on a simulated device: the samples that are stored there, and virtual seconds."""

import numpy as np
from numpy.typing import NDArray

from edge_agent.core.sample_budget import steps_of_round
from edge_agent.training.stored_samples import StoredSamples, divide
from fleet_protocol.bundle import TaskDescription
from workbench.simulation.conditions import Conditions
from workbench.simulation.device_memory import unseen_rows
from workbench.simulation.workload import Workload

FLOPS_PER_WEIGHT_AND_SAMPLE = 6
"""Of a dense layer: a multiplication and an addition, once forward and twice backward."""


def round_seconds(task: TaskDescription, conditions: Conditions, samples: int) -> float:
    """How long a round on so many samples takes."""
    plan = task.training
    steps = steps_of_round(plan, samples)
    work = FLOPS_PER_WEIGHT_AND_SAMPLE * task.parameter_count * plan.batch_size * steps
    return conditions.start_seconds + work / (1e6 * conditions.training_mflops)


def samples_of_round(
    workload: Workload, device: int, stored: NDArray[np.int64], *, newest: int, trained_through: int, share: float
) -> StoredSamples:
    """The samples in the `stored` rows, once those up to `newest` have come and rounds have seen `trained_through`."""
    return divide(
        workload.samples(device, stored),
        workload.identities(device, stored),
        unseen_rows(stored, workload.count(device), newest, trained_through),
        share,
    )
