"""A round of a simulated device: what it begins with, as data alone, what that gives, and how long it takes. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import msgspec
import numpy as np

from bundle_runtime.gaussian_integers import Draw
from edge_agent.core.sample_budget import steps_of_round
from edge_agent.training.compression import Encode
from edge_agent.training.copies import chosen_cluster
from edge_agent.training.measured_step import OPERATIONS_PER_WEIGHT_AND_SAMPLE
from edge_agent.training.own_limits import take_part
from edge_agent.training.private.randomness import OF_THE_SYSTEM
from edge_agent.training.round import Earlier, Mask
from edge_agent.training.stored_samples import Division, StoredSamples, division
from edge_agent.worker.contract import Returned, TrainingResult, Withheld
from fleet_protocol.codec import ClusterView, encode_update
from fleet_protocol.codec.sparse import FloatVector
from fleet_protocol.task_description import TaskDescription
from workbench.simulation.conditions import Conditions
from workbench.simulation.device_memory import stored_rows, unseen_rows
from workbench.simulation.local_training import LocalTraining

DIVISIONS_KEPT = 1024
"""Where nothing real learns, all devices have samples of the same identities."""
MOST_KEPT_SAMPLES = 256
"""Of a division that is kept."""


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class RoundJob:
    """A round of a device as it begins; what comes later is for its next round. The same job gives the same result.

    `weights` f32[V] are the version's. Of the device's samples `newest_sample` have come, the newest
    `maximum_samples` are stored, and those up to the number `behind` can't bear another round. `returned` are rejected
    updates by their numbers, and `cluster` is whose copy of the parameters it trains, or trained last where it chooses.
    The others are as of `Earlier`.
    """

    device: int
    task: TaskDescription
    weights: FloatVector
    newest_sample: int
    trained_through: int
    maximum_samples: int
    behind: int
    residual: bytes
    returned: Mapping[int, Returned]
    seed: int
    life: int
    epochs: float
    usual_norm: float
    last_weights: FloatVector | None
    own: bytes
    drift: bytes
    versions_since: int
    cluster: int


def round_seconds(task: TaskDescription, conditions: Conditions, samples: int) -> float:
    """How long a round on so many samples takes."""
    plan = task.training
    steps = steps_of_round(plan, samples)
    work = OPERATIONS_PER_WEIGHT_AND_SAMPLE * task.parameter_count * plan.batch_size * steps
    return conditions.start_seconds + work / (1e6 * conditions.training_mflops)


def carried_out(
    job: RoundJob,
    training: LocalTraining,
    *,
    encode: Encode = encode_update,
    draw: Draw = OF_THE_SYSTEM,
    mask: Mask | None = None,
) -> TrainingResult | Withheld:
    """What a round gives; `encode`, `draw` and `mask` as of `Earlier`.

    Raises:
        DivergedError: as `take_part`.
    """
    earlier = Earlier(
        job.residual,
        list(job.returned.values()),
        job.seed,
        job.life,
        job.epochs,
        job.usual_norm,
        job.last_weights,
        draw=draw,
        encode=encode,
        plan=training.plan,
        mask=mask,
        own=job.own,
        drift=job.drift,
        versions_since=job.versions_since,
    )
    samples = samples_of_round(job, training)
    if job.task.clusters is None:
        return take_part(
            training.engine,
            job.weights,
            samples,
            job.task,
            earlier,
            evaluate=training.evaluate,
            predict=training.predict,
        )
    cluster = chosen_cluster(
        job.weights, job.task, samples.training, job.cluster, draw=(job.life, job.seed), evaluate=training.evaluate
    )
    weights = ClusterView.of(job.task, cluster).weights(job.weights)
    result = take_part(
        training.engine, weights, samples, job.task, earlier, evaluate=training.evaluate, predict=training.predict
    )
    return result if isinstance(result, Withheld) else msgspec.structs.replace(result, cluster=cluster)


def samples_of_round(job: RoundJob, training: LocalTraining) -> StoredSamples:
    """The stored samples, as the round finds them."""
    different = training.count(job.device)
    stored = stored_rows(job.newest_sample, different, job.maximum_samples, job.behind)
    unseen = unseen_rows(stored, different, job.newest_sample, job.trained_through)
    identities = training.identities(job.device, stored)
    share = job.task.training.validation_share
    if stored.size > MOST_KEPT_SAMPLES:
        divided = division(identities, unseen, share)
    else:
        divided = _division(identities.tobytes(), unseen.tobytes(), share)
    return divided.of(training.samples(job.device, stored))


@lru_cache(DIVISIONS_KEPT)
def _division(identities: bytes, unseen: bytes, validation_share: float) -> Division:
    return division(np.frombuffer(identities, np.uint64), np.frombuffer(unseen, np.bool_), validation_share)
