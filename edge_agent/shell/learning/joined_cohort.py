"""A round for a cohort of masked updates, as the shipped agent and the simulated one take part in it. Pure."""

import msgspec

from edge_agent.core.privacy_settings import PrivacySettings
from edge_agent.shell.connection.identity import Identity
from edge_agent.worker.contract import JoinedCohort, TrainingResult
from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.kinds import decode_payload
from fleet_protocol.privacy.mask_plan import MaskPlan
from secure_aggregation.messages import SealedSeeds


def why_no_cohort(*, waits: bool, cohort: bytes) -> str | None:
    """Why no round of a task with masks begins now, in words; None where one may. `waits`: an update of the device has
    no receipt yet; `cohort` as in `Manifest`.
    """
    if waits:
        return "its last update waits until its cohort is summed"
    return None if cohort else "no cohort is open; the coordinator announces the next"


def joined_cohort(
    cohort: bytes,
    plan: MaskPlan,
    identity: Identity,
    owner: PrivacySettings,
    *,
    sequence: int,
    base_version: int,
    generation: int,
) -> JoinedCohort:
    """What a round from a version needs to take part in a cohort, as its manifest names it. No other masked update of
    the device's key has the same `sequence`.
    """
    demands = owner.demands_masks
    helpers = owner.trusted_mask_helpers if demands else list(plan.helpers.values())
    return JoinedCohort(
        manifest=cohort,
        coordinator=bytes(identity.coordinator),
        device=identity.device,
        sequence=sequence,
        base_version=base_version,
        generation=generation,
        trusted_helpers=[bytes.fromhex(key.strip()) for key in helpers],
        fewest_devices=owner.fewest_devices if demands else 2,
        fewest_colluding=owner.fewest_colluding if demands else 0,
    )


def signed_result(result: TrainingResult, joined: JoinedCohort, identity: Identity) -> TrainingResult:
    """The result with the device's signature of its seeds.

    Raises:
        ProtocolError: they are not of the update that the worker was asked for.
    """
    if result.masked is None:
        return result
    seeds = decode_payload(result.masked.seeds, SealedSeeds)
    if (seeds.device, seeds.sequence, seeds.base_version) != (joined.device, joined.sequence, joined.base_version):
        raise ProtocolError(Reason.WRONG_RECIPIENT, "the worker has sealed seeds of another update than its own")
    signature = identity.sign_seeds(seeds)
    return msgspec.structs.replace(result, masked=msgspec.structs.replace(result.masked, signature=signature))
