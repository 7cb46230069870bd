"""A round on a simulated device: the virtual seconds that it takes, what it begins with, and what it gives."""

from dataclasses import replace

from edge_agent.core.privacy_settings import PrivacySettings
from edge_agent.core.sample_budget import steps_of_round
from edge_agent.producers import given_back
from edge_agent.training.measured_step import OPERATIONS_PER_WEIGHT_AND_SAMPLE
from edge_agent.worker.contract import TrainingResult, Withheld
from fleet_protocol.codec.sparse import FloatVector
from fleet_protocol.task_description import TaskDescription
from workbench.simulation.conditions import Conditions, FleetMember
from workbench.simulation.device_memory import DeviceMemory
from workbench.simulation.masks.device import CohortRound
from workbench.simulation.messages import DeviceEnd
from workbench.simulation.privacy_budget import as_chosen, spent_samples
from workbench.simulation.round_job import RoundJob, carried_out
from workbench.simulation.world import PublishedVersion, SimulatedWorld


def round_seconds(task: TaskDescription, conditions: Conditions, samples: int) -> float:
    """How long a round on so many samples takes."""
    plan = task.training
    steps = steps_of_round(plan, samples)
    work = OPERATIONS_PER_WEIGHT_AND_SAMPLE * task.parameter_count * plan.batch_size * steps
    return conditions.start_seconds + work / (1e6 * conditions.training_mflops)


def begun_round(
    world: SimulatedWorld,
    device: int,
    member: FleetMember,
    memory: DeviceMemory,
    version: PublishedVersion,
    *,
    newest_sample: int,
    last_weights: FloatVector | None,
) -> RoundJob:
    """What a device that has `memory` begins a round from `version` with, when so many samples have come;
    `last_weights` f32[P] as of `Earlier`.
    """
    residual = world.residuals.get(device)
    begins = world.residuals.begin_lives and not residual
    chooses = version.task.clusters is not None and version.task.clusters.by_devices
    return RoundJob(
        device,
        version.task,
        version.weights,
        newest_sample,
        memory.trained_through,
        member.maximum_samples,
        spent_samples(memory.charges, version.task, member.owner),
        residual,
        given_back(memory.returned),
        memory.rounds,
        world.life(device) if begins or chooses else 1,
        memory.epochs,
        memory.usual_norm,
        last_weights,
        memory.own,
        memory.drift,
        version.number - memory.held.version if memory.held else 0,
        memory.cluster,
    )


def ended_round(
    world: SimulatedWorld,
    job: RoundJob,
    memory: DeviceMemory,
    version: PublishedVersion,
    *,
    end: DeviceEnd,
    owner: PrivacySettings,
) -> TrainingResult | Withheld:
    """What the round gives. Where rounds draw from the fleet's random numbers, they do so in the order of their ends.

    Raises:
        DivergedError: as `take_part`.
        ProtocolError: as `CohortRound`.
    """
    if world.trainer is not None:
        return world.trainer.result(job)
    task, training, cohort = job.task, world.workload, None
    if task.masks is not None:
        cohort = CohortRound(task, task.masks, version, end, owner, generator=world.generator)
    if task.sample_privacy is not None:
        engine, chosen = as_chosen(training.engine, task, owner)
        job, training = replace(job, task=chosen), replace(training, engine=engine)
    mask = cohort.mask if cohort else None
    result = carried_out(job, training, encode=world.encode, draw=world.generator.bytes, mask=mask)
    if cohort is None or isinstance(result, Withheld):
        return result
    return cohort.signed(result, memory.noised)
