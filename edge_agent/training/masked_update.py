"""A round's update behind masks: what the error feedback offers is rounded, and masked for the cohort's helpers. Pure.

The device's key is not here: the agent signs the seeds (`edge_agent.shell.learning.cohorts`).
"""

from dataclasses import dataclass

import numpy as np

from edge_agent.training.feedback import ErrorFeedback
from edge_agent.worker.contract import JoinedCohort, MaskedResult
from fleet_protocol.bundle_files import KEY_HOLDER_FILE, verify_blob
from fleet_protocol.codec import SparseUpdate
from fleet_protocol.codec.sparse import FloatVector
from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.keys import VerifyKey, read_verify_key
from fleet_protocol.kinds import Signed, decode_payload, encode_payload
from fleet_protocol.privacy.mask_plan import MaskPlan
from fleet_protocol.privacy.noise_shares import NoisedUpdates
from fleet_protocol.task_description import TaskDescription
from secure_aggregation.device import DevicePolicy, MaskedEntries, accepted_cohort, masked_entries
from secure_aggregation.discrete_gaussian import RandomBytes
from secure_aggregation.encryption_key import read_encryption_key
from secure_aggregation.messages import CohortManifest
from secure_aggregation.positions import shared_positions


@dataclass(frozen=True, slots=True)
class Cohort:
    """One that was checked, and who this device is in it; `noised` is what noise hides of an update, if any does, and
    `zeros` are the encryptions for its key holder, if it has one.
    """

    joined: JoinedCohort
    manifest: CohortManifest
    noised: NoisedUpdates | None = None
    zeros: bytes | None = None


def checked_cohort(joined: JoinedCohort, task: TaskDescription) -> Cohort:
    """Check a cohort's manifest by what the device's owner asks for and the task promises, before anything is trained
    for it.

    Raises:
        ProtocolError: what is wrong, or less than the owner asks for, or the task promises.
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
    if task.masks is None:
        return Cohort(joined, manifest)
    _require_promised(manifest, task.masks, task)
    return Cohort(joined, manifest, task.masks.noised_updates(task.trained_count))


def encryption_key(file: bytes, task: TaskDescription) -> bytes | None:
    """The public key that a task's updates are encrypted under, from its file in the bundle; None where they are not.

    Raises:
        ProtocolError: the file is another than the task's, or not signed by the key holder that it names.
    """
    if task.masks is None or task.masks.key_holder is None:
        return None
    verify_blob(KEY_HOLDER_FILE, file, task.files[KEY_HOLDER_FILE])
    holder = task.masks.helpers[task.masks.key_holder]
    return read_encryption_key(file, read_verify_key(holder, "[privacy.masks] helpers", "edgeflock-helper mask-key"))


def _require_promised(manifest: CohortManifest, plan: MaskPlan, task: TaskDescription) -> None:
    """What hides a device is counted by its task; a cohort with less would tell more than the device counts."""
    parameters = task.trained_count
    promises = {name: getattr(plan, name) for name in ("clip", "bits", "fewest_devices", "colluding", "deviation")}
    promises["fewest_per_weight"] = plan.fewest_devices
    promises["key_holder"] = plan.key_holder_number
    promises["encryption_key"] = bytes.fromhex(task.files[KEY_HOLDER_FILE]) if plan.key_holder else b""
    promises["entries"], promises["positions"] = plan.entries(parameters), plan.position_rule(parameters)
    for name, promised in promises.items():
        if promised != (offered := getattr(manifest, name)):
            raise ProtocolError(
                Reason.OUT_OF_BOUNDS,
                f"cohort {manifest.number} has {name} {_shown(offered)}, and [privacy.masks] of {manifest.task}"
                f" promises {_shown(promised)}; the task has to be published again",
            )


def _shown(value: object) -> object:
    return (value.hex() or "none") if isinstance(value, bytes) else value


def masked_result(delta: FloatVector, memory: ErrorFeedback, cohort: Cohort, random_bytes: RandomBytes) -> MaskedResult:
    """As `masked`, as it goes to the agent.

    Raises:
        ProtocolError: `NOT_FINITE`.
    """
    made, forgotten = masked(delta, memory, cohort, random_bytes)
    plain = np.zeros(delta.size, np.float32)
    made.sent.add_to(plain)
    return MaskedResult(encode_payload(made.seeds), made.values, plain.tobytes(), forgotten=forgotten)


def masked(
    delta: FloatVector, memory: ErrorFeedback, cohort: Cohort, random_bytes: RandomBytes
) -> tuple[MaskedEntries, float]:
    """Mask what `memory` offers after a round that changed the weights by `delta`, f32[trained]; it keeps the rest.
    Returns what is sent, and the norm of what is forgotten.

    It never sees the noise: kept as an error, it would be taken off the next update, whose sum with this one would then
    be without it. What is too long for one device is not kept either: a clip is a smaller step.

    Raises:
        ProtocolError: `NOT_FINITE`.
    """
    positions, offered = shared_positions(cohort.manifest), memory.offer(delta)
    made = masked_entries(
        cohort.manifest,
        positions,
        offered,
        device=cohort.joined.device,
        sequence=cohort.joined.sequence,
        base_version=cohort.joined.base_version,
        random_bytes=random_bytes,
        noised=cohort.noised,
        zeros=cohort.zeros,
    )
    too_long = SparseUpdate(positions, offered[positions] * np.float32(1 - made.scale))
    memory.take(too_long)
    memory.take(made.sent)
    return made, too_long.norm()
