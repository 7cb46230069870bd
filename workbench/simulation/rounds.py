"""What a round takes on a simulated device: the samples that are stored there, and virtual seconds."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from edge_agent.core.sample_budget import steps_of_round
from edge_agent.training.measured_step import OPERATIONS_PER_WEIGHT_AND_SAMPLE
from edge_agent.training.stored_samples import Division, StoredSamples, division
from fleet_protocol.task_description import TaskDescription
from workbench.simulation.conditions import Conditions
from workbench.simulation.device_memory import unseen_rows
from workbench.simulation.workload import Workload


DIVISIONS_KEPT = 1024
"""Where nothing real learns, all devices have samples of the same identities."""
MOST_KEPT_SAMPLES = 256
"""Of a division that is kept."""


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
    identities = workload.identities(device, stored)
    share = task.training.validation_share
    if stored.size > MOST_KEPT_SAMPLES:
        divided = division(identities, unseen, share)
    else:
        divided = _division(identities.tobytes(), unseen.tobytes(), share)
    return divided.of(workload.samples(device, stored))


@lru_cache(DIVISIONS_KEPT)
def _division(identities: bytes, unseen: bytes, validation_share: float) -> Division:
    return division(np.frombuffer(identities, np.uint64), np.frombuffer(unseen, np.bool_), validation_share)
