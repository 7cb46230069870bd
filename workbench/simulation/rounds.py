"""A round on a simulated device: the virtual seconds that it takes, its samples, and what it gives."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from edge_agent.core.privacy_settings import PrivacySettings
from edge_agent.core.sample_budget import steps_of_round
from edge_agent.producers import given_back
from edge_agent.training.measured_step import OPERATIONS_PER_WEIGHT_AND_SAMPLE
from edge_agent.training.own_limits import take_part
from edge_agent.training.round import Earlier
from edge_agent.training.stored_samples import Division, StoredSamples, division
from edge_agent.worker.contract import TrainingResult, Withheld
from fleet_protocol.codec import ClusterView
from fleet_protocol.codec.sparse import FloatVector
from fleet_protocol.task_description import TaskDescription
from workbench.simulation.conditions import Conditions
from workbench.simulation.device_memory import DeviceMemory, unseen_rows
from workbench.simulation.masks.device import CohortRound
from workbench.simulation.messages import DeviceEnd
from workbench.simulation.privacy_budget import as_chosen
from workbench.simulation.workload import Workload
from workbench.simulation.world import PublishedVersion, SimulatedWorld

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


def take_part_in_round(
    world: SimulatedWorld,
    device: int,
    memory: DeviceMemory,
    version: PublishedVersion,
    *,
    end: DeviceEnd,
    owner: PrivacySettings,
    newest_sample: int,
    stored: NDArray[np.int64],
    last_weights: FloatVector | None,
) -> TrainingResult | Withheld:
    """What a round from `version` gives on the `stored` rows of a device, of which `newest_sample` have come;
    `last_weights` f32[P] as of `Earlier`.

    Raises:
        DivergedError: as `take_part`.
        ProtocolError: as `CohortRound`.
    """
    task, workload = version.task, world.workload
    residual = world.residuals.get(device)
    cohort = None
    if task.masks is not None:
        cohort = CohortRound(task, task.masks, version, end, owner, generator=world.generator)
    earlier = Earlier(
        residual,
        list(given_back(memory.returned).values()),
        memory.rounds,
        world.life(device) if world.residuals.begin_lives and not residual else 1,
        memory.epochs,
        memory.usual_norm,
        last_weights,
        draw=world.generator.bytes,
        encode=world.encode,
        plan=workload.plan,
        mask=cohort.mask if cohort else None,
        own=memory.own,
    )
    samples = samples_of_round(
        workload, task, device, stored, newest_sample=newest_sample, trained_through=memory.trained_through
    )
    weights = version.weights
    if task.clusters is not None:
        weights = ClusterView.of(task, memory.cluster).weights(weights)
    engine, chosen = as_chosen(workload.engine, task, owner)
    result = take_part(engine, weights, samples, chosen, earlier, evaluate=workload.evaluate)
    if cohort is None or isinstance(result, Withheld):
        return result
    return cohort.signed(result, memory.noised)


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
