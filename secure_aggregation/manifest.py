"""What must hold between the fields of a cohort's manifest, and what follows from them. Pure."""

from itertools import pairwise
from typing import TypeAlias

from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.limits import MAX_MASK_HELPERS
from fleet_protocol.privacy.encryption_plan import decrypts_exactly
from fleet_protocol.privacy.mask_plan import LARGEST_CLIP, SMALLEST_CLIP
from secure_aggregation.field import Field
from secure_aggregation.messages import HASH_BYTES, CohortManifest
from secure_aggregation.positions import top_indices
from secure_aggregation.seed_plan import SeedPlan

_Rule: TypeAlias = tuple[bool, str]
"""Whether it holds, and what is said where it does not."""


def check_manifest(manifest: CohortManifest) -> None:
    """Refuse a manifest that no cohort can keep to.

    Raises:
        ProtocolError: `OUT_OF_BOUNDS`, with the field, its value and what it must be; or as `top_indices`.
    """
    rules = (*_rules_of_entries(manifest), *_rules_of_members(manifest), *_rules_of_encryption(manifest))
    for holds, otherwise in rules:
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
            f"a mask helper's key stands there twice; name up to {MAX_MASK_HELPERS} helpers of different keys",
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


def _rules_of_encryption(manifest: CohortManifest) -> tuple[_Rule, ...]:
    helpers, field = len(manifest.helpers), field_of(manifest)
    if not manifest.encryption_key:
        return (
            (
                manifest.colluding > 0,
                f"colluding 0 of {helpers} mask helpers without a key holder: one that works with the coordinator would"
                " see every update",
            ),
            (not manifest.key_holder, f"key_holder {manifest.key_holder} without an encryption_key"),
        )
    return (
        (
            len(manifest.encryption_key) == HASH_BYTES,
            f"encryption_key has {len(manifest.encryption_key)} bytes, a SHA-256 has {HASH_BYTES}",
        ),
        (
            manifest.key_holder < helpers and manifest.colluding == helpers - 1,
            f"key_holder {manifest.key_holder} and colluding {manifest.colluding} with {helpers} mask helpers; where"
            " updates are encrypted, all helpers must answer, the key holder among them",
        ),
        (
            decrypts_exactly(field.width, field.total_weight),
            f"encrypted sums of {field.width} bits of a total weight of {field.total_weight} don't decrypt exactly;"
            " lower bits, most_devices or the largest weight",
        ),
    )


def field_of(manifest: CohortManifest) -> Field:
    """The numbers of a cohort: room for its largest weight on every one of its devices."""
    return Field(manifest.clip, manifest.bits, manifest.most_devices * manifest.weights[-1], manifest.deviation)


def seed_plan_of(manifest: CohortManifest) -> SeedPlan:
    """Which helper of a cohort holds which seeds."""
    return SeedPlan(len(manifest.helpers), manifest.colluding)
