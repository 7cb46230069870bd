"""What must hold between the fields of a cohort's manifest, and what follows from them. Pure."""

from itertools import pairwise
from typing import TypeAlias

from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.limits import MAX_MASK_HELPERS
from fleet_protocol.privacy.mask_plan import LARGEST_CLIP, SMALLEST_CLIP
from secure_aggregation.field import Field
from secure_aggregation.messages import CohortManifest
from secure_aggregation.positions import top_indices
from secure_aggregation.seed_plan import SeedPlan

_Rule: TypeAlias = tuple[bool, str]
"""Whether it holds, and what is said where it does not."""


def check_manifest(manifest: CohortManifest) -> None:
    """Refuse a manifest that no cohort can keep to.

    Raises:
        ProtocolError: `OUT_OF_BOUNDS`, with the field, its value and what it must be; or as `top_indices`.
    """
    for holds, otherwise in (*_rules_of_entries(manifest), *_rules_of_members(manifest)):
        if not holds:
            raise ProtocolError(Reason.OUT_OF_BOUNDS, f"manifest of cohort {manifest.number}: {otherwise}")
    top_indices(manifest)
    field_of(manifest).check()


def _rules_of_entries(manifest: CohortManifest) -> tuple[_Rule, ...]:
    is_dense = manifest.positions == "dense"
    return (
        (
            SMALLEST_CLIP <= manifest.clip <= LARGEST_CLIP,
            f"clip {manifest.clip} is not from {SMALLEST_CLIP:.3g} to {LARGEST_CLIP:.3g}",
        ),
        (
            manifest.entries == manifest.parameters if is_dense else manifest.entries < manifest.parameters,
            f"{manifest.entries} entries of {manifest.parameters} parameters with {manifest.positions} positions;"
            " dense sends all of them, every other rule fewer",
        ),
        (
            manifest.positions == "momentum" or not manifest.top_positions,
            f"it names top positions, and {manifest.positions} positions have none",
        ),
    )


def _rules_of_members(manifest: CohortManifest) -> tuple[_Rule, ...]:
    return (
        (
            manifest.oldest_version <= manifest.newest_version,
            f"oldest_version {manifest.oldest_version} is above newest_version {manifest.newest_version}",
        ),
        (
            all(before < after for before, after in pairwise(manifest.weights)),
            f"weights {manifest.weights} are not in ascending order, each once",
        ),
        (
            manifest.fewest_per_weight <= manifest.fewest_devices <= manifest.most_devices,
            f"fewest_per_weight {manifest.fewest_per_weight}, fewest_devices {manifest.fewest_devices} and most_devices"
            f" {manifest.most_devices} are not in ascending order",
        ),
        (
            len(set(manifest.helpers)) == len(manifest.helpers),
            f"a mask helper's key stands there twice; name 2 to {MAX_MASK_HELPERS} helpers of different keys",
        ),
        (
            manifest.colluding < len(manifest.helpers),
            f"colluding {manifest.colluding} is not below the {len(manifest.helpers)} mask helpers",
        ),
        (
            not manifest.deviation or manifest.weights == (1,),
            f"weights {manifest.weights} with noise of {manifest.deviation} levels, which a weight would enlarge with"
            " its update; every weight is 1 there",
        ),
    )


def field_of(manifest: CohortManifest) -> Field:
    """The numbers of a cohort: room for its largest weight on every one of its devices."""
    return Field(manifest.clip, manifest.bits, manifest.most_devices * manifest.weights[-1], manifest.deviation)


def seed_plan_of(manifest: CohortManifest) -> SeedPlan:
    """Which helper of a cohort holds which seeds."""
    return SeedPlan(len(manifest.helpers), manifest.colluding)
