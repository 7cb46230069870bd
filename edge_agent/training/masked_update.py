"""A round's update behind masks: what the error feedback offers is rounded, and masked for the cohort's helpers. Pure.

The device's key is not here: the agent signs the seeds (`edge_agent.shell.learning.cohorts`).
"""

from dataclasses import dataclass

import numpy as np

from edge_agent.training.feedback import ErrorFeedback
from edge_agent.worker.contract import JoinedCohort, MaskedResult
from fleet_protocol.codec.sparse import FloatVector
from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.keys import VerifyKey
from fleet_protocol.kinds import Signed, decode_payload, encode_payload
from fleet_protocol.task_description import TaskDescription
from secure_aggregation.device import DevicePolicy, RandomBytes, accepted_cohort, masked_entries
from secure_aggregation.messages import CohortManifest
from secure_aggregation.positions import shared_positions


@dataclass(frozen=True, slots=True)
class Cohort:
    """One that was checked, and who this device is in it."""

    joined: JoinedCohort
    manifest: CohortManifest


def checked_cohort(joined: JoinedCohort, task: TaskDescription) -> Cohort:
    """Check a cohort's manifest by what the device's owner asks for, before anything is trained for it.

    Raises:
        ProtocolError: what is wrong, or less than the owner asks for.
    """
    policy = DevicePolicy(
        frozenset(joined.trusted_helpers), joined.fewest_devices, joined.fewest_devices, joined.fewest_colluding
    )
    message = decode_payload(joined.manifest, Signed)
    coordinator = VerifyKey(joined.coordinator)
    manifest = accepted_cohort(message, coordinator, policy, task.trained_count, joined.base_version)
    if (manifest.task, manifest.generation) != (task.task, joined.generation):
        raise ProtocolError(
            Reason.UNKNOWN_TASK,
            f"the cohort is of {manifest.task}, generation {manifest.generation}; this round of {task.task}, generation"
            f" {joined.generation}",
        )
    return Cohort(joined, manifest)


def masked_result(delta: FloatVector, memory: ErrorFeedback, cohort: Cohort, random_bytes: RandomBytes) -> MaskedResult:
    """Mask what `memory` offers after a round that changed the weights by `delta`, f32[trained]; it keeps the rest.

    Raises:
        ProtocolError: `NOT_FINITE`.
    """
    made = masked_entries(
        cohort.manifest,
        shared_positions(cohort.manifest),
        memory.offer(delta),
        device=cohort.joined.device,
        sequence=cohort.joined.sequence,
        base_version=cohort.joined.base_version,
        random_bytes=random_bytes,
    )
    memory.take(made.sent)
    plain = np.zeros(delta.size, np.float32)
    made.sent.add_to(plain)
    return MaskedResult(encode_payload(made.seeds), made.values, plain.tobytes())
