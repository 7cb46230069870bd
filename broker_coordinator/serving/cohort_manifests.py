"""What a cohort of masked updates is opened as, and whether it still is what its task would open. Pure."""

import msgspec

from broker_coordinator.aggregation.contribution import staleness_weight
from broker_coordinator.serving.served_task import ServedTask
from fleet_protocol.bundle_files import KEY_HOLDER_FILE
from fleet_protocol.keys import SigningKey
from fleet_protocol.kinds import Signed
from fleet_protocol.privacy.mask_plan import MaskPlan, largest_weight
from secure_aggregation.coordinator import VoidCohortError
from secure_aggregation.messages import CohortManifest
from secure_aggregation.positions import top_positions
from secure_aggregation.signatures import signed
from secure_aggregation.weights import whole_weight

VERSIONS_AHEAD = 1
"""Versions that may be made while a cohort is open beside its own: an operator's rollbacks."""


def manifest_of(task: ServedTask, plan: MaskPlan, *, number: int, seed: int, top: bytes) -> CohortManifest:
    """The manifest of a cohort that is opened now; `top` are its `named_positions`."""
    description = task.description
    newest, staleness = task.newest.number, description.aggregation.max_staleness
    entries = plan.entries(description.trained_count)
    return CohortManifest(
        number=number,
        task=description.task,
        generation=task.generation,
        oldest_version=max(task.first_version, newest - staleness),
        newest_version=newest + VERSIONS_AHEAD,
        parameters=description.trained_count,
        entries=entries,
        positions=plan.position_rule(description.trained_count),
        positions_seed=seed,
        top_positions=top,
        clip=plan.clip,
        bits=plan.bits,
        weights=tuple(range(1, largest_weight(description.aggregation) + 1)),
        fewest_devices=plan.fewest_devices,
        most_devices=description.aggregation.smallest_buffer,
        fewest_per_weight=plan.fewest_devices,
        helpers=tuple(bytes.fromhex(plan.helpers[name].strip()) for name in sorted(plan.helpers)),
        colluding=plan.colluding,
        deviation=plan.deviation,
        encryption_key=bytes.fromhex(description.files[KEY_HOLDER_FILE]) if plan.key_holder else b"",
        key_holder=plan.key_holder_number,
    )


def weight_in(task: ServedTask, manifest: CohortManifest, base_version: int) -> int:
    """What an update that began with this version weighs in a set that is made now."""
    staleness = max(0, task.newest.number - base_version)
    return whole_weight(staleness_weight(staleness, task.description.aggregation), manifest.weights)


def named_positions(task: ServedTask, plan: MaskPlan) -> bytes:
    """Where the first moment of the server's optimiser is largest, if the task's positions follow from it."""
    parameters = task.description.trained_count
    if plan.position_rule(parameters) != "momentum":
        return b""
    return top_positions(task.state.moments[0], plan.entries(parameters))


def require_as_opened(
    task: ServedTask, plan: MaskPlan, manifest: CohortManifest, stored: Signed, key: SigningKey
) -> None:
    """Check that a cohort, `stored` as it was signed, is of the task as it is: its versions, numbers and helpers.

    Raises:
        VoidCohortError: the task is another one now, or the coordinator's key.
    """
    again = manifest_of(task, plan, number=manifest.number, seed=manifest.positions_seed, top=manifest.top_positions)
    versions = {"oldest_version": manifest.oldest_version, "newest_version": manifest.newest_version}
    same = msgspec.structs.replace(again, **versions) == manifest
    if signed(key, manifest) != stored:
        raise VoidCohortError("another key has signed the cohort's manifest; its updates go back into residuals")
    if not same or not manifest.oldest_version <= task.newest.number <= manifest.newest_version:
        raise VoidCohortError("the task was changed while the cohort was open; its updates go back into residuals")
